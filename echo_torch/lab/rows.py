"""The results of a sweep as rows, one for each run, that any program for tables reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.options import is_own_model
from echo_torch.files import read_bytes, write_text
from echo_torch.lab.grids import Grid, grid_of, read_grid
from echo_torch.lab.plan import Plan
from echo_torch.lab.results import read_finished
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.tables import symbols_to_skill

GRID = "grid.yaml"  # beside the runs: which there must be
FINISHED, FAILED, MISSING, DAMAGED = "finished", "failed", "missing", "damaged"
VERSIONS = ("python", "torch", "pytorch_lightning", "numpy")
_OF_RESULT = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_reset", "chance", "ceiling", "loss", "targets")
_OF_TRAINING = ("updates", "seconds", "parameters", "weights_sha256")
_OF_REACH = ("gap", "reachable_share", "in_horizon_share")
_CURVE = ("update", "sequences", "symbols", "targets", "loss", "accuracy")
_MAX_FAILURE_BYTES = 2**16


def read_sweep(folder: str | Path, *, allow_missing: bool = False) -> list[dict[str, Any]]:
    """The runs of a sweep, a row each: their options, what they have learned, and how.

        import pandas
        table = pandas.DataFrame(read_sweep("runs/sweep"))
        table.groupby(["lag", "chunk"]).accuracy.mean().unstack()

    Args:
        folder: Where the sweep is.
        allow_missing: Whether a run that is not there, has failed or is damaged gets a row too, whose `status` and
            `reason` say so and whose other columns are None.

    Returns:
        For each run `run`, its name; the axes and `seed` under the names of their options; `status` and `reason`;
        `accuracy` with the Wilson interval `accuracy_low` to `accuracy_high`, `accuracy_reset`, `chance`, `ceiling`,
        `loss` (nats) and `targets` of the evaluation; `gap`, `reachable_share` and `in_horizon_share` of its data path;
        `updates`, `symbols` (fresh ones drawn), `symbols_to_99` (None: never), `seconds`, `parameters`,
        `weights_sha256`; and the versions of python, torch, pytorch_lightning and numpy.

    Raises:
        UserError: If the folder holds no sweep, or a run is missing, failed or damaged.
    """
    folder = Path(folder)
    grid = saved_grid(folder)
    rows = rows_of(grid, grid.runs(), folder)
    if not allow_missing and (wrong := [row for row in rows if row["status"] != FINISHED]):
        raise UserError(f"{missing_in_words(rows)} {wrong[0]['reason']}")
    return rows


def saved_grid(folder: Path) -> Grid:
    """The grid of a sweep.

    Raises:
        RuleError: If the folder holds none.
        UserError: If it cannot be read.
    """
    if not (folder / GRID).exists():
        raise RuleError("run", "$run must be the folder of a sweep", f"{str(folder)!r}, which has no {GRID}")
    values, what = read_grid(folder / GRID), f"{str(folder / GRID)!r} is not the grid of a sweep"
    if missing := [name for name in ("mode", "seeds", "grid") if name not in values]:
        raise UserError(f"{what}: it has no {missing[0]!r}.")
    try:
        return grid_of(values.pop("mode"), values.pop("grid"), values.pop("seeds"), values)
    except RuleError as error:
        raise UserError(f"{what}: {error.wording(lambda name: name)}") from None


def rows_of(grid: Grid, runs: Mapping[str, Configuration], folder: Path) -> list[dict[str, Any]]:
    """A row for each run, in their order, whatever has become of it."""
    reached: dict[tuple[object, ...], dict[str, Any]] = {}
    names = list(grid.axes)
    rows = []
    for place in grid.places():
        for name in grid.names(place):
            c = runs[name]
            which = (*place.values(), c.seed if c.missing else None)  # where nothing is missing all seeds read alike
            if which not in reached:
                found = Plan(c).reach()
                reached[which] = {column: getattr(found, column) for column in _OF_REACH}
            own = {"run": name, **{axis: place[axis] for axis in names}, "seed": c.seed}
            rows.append({**own, **_became(RunDirectory(folder / name), c), **reached[which]})
    return rows


def found_in(run: RunDirectory, configuration: Configuration) -> tuple[dict[str, Any] | None, str, str | None]:
    """The result of one of many runs, None where there is none; what has become of the run; and why.

    Args:
        run: Its directory.
        configuration: What it must be of.
    """
    try:
        # Nothing that a folder names is run by itself, so it is not looked whether a model's source is another one now.
        is_own = is_own_model(configuration.model) and run.config.exists()
        result = read_finished(run, configuration, run.read_saved()[1] if is_own else None)
    except UserError as error:
        return None, DAMAGED, error.message
    return (None, *why_not(run)) if result is None else (result, FINISHED, None)


def _became(run: RunDirectory, configuration: Configuration) -> dict[str, Any]:
    """What a run has left, or why there is nothing."""
    result, status, reason = found_in(run, configuration)
    of_metrics: dict[str, Any] = {"symbols": None, "symbols_to_99": None}
    if result is not None:
        metrics = run.read_metrics()
        of_metrics = {"symbols": int(metrics["symbols"][-1]), "symbols_to_99": symbols_to_skill(metrics)}
    found = result or {}
    return {
        "status": status,
        "reason": reason,
        **{name: found.get(name) for name in (*_OF_RESULT, *_OF_TRAINING)},
        **of_metrics,
        **{name: found.get("versions", {}).get(name) for name in VERSIONS},
    }


def why_not(run: RunDirectory) -> tuple[str, str]:
    """What has become of a run that is not finished, and why."""
    try:
        return FAILED, str(json.loads(read_bytes(run.failure, _MAX_FAILURE_BYTES))["reason"])
    except FileNotFoundError:
        made = run.last_update()
        return MISSING, f"It is not finished: {made:,} updates are made." if made else "It has not begun."
    except (OSError, ValueError, KeyError, TypeError) as error:
        return DAMAGED, f"{str(run.failure)!r} cannot be read ({error})."


def missing_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which runs are not finished, how many in which way, and the names of the first; "" where all are."""
    wrong = [row for row in rows if row["status"] != FINISHED]
    if not wrong:
        return ""
    named = ", ".join(row["run"] for row in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    kinds = [(kind, sum(row["status"] == kind for row in wrong)) for kind in (FAILED, DAMAGED, MISSING)]
    how = ", ".join(f"{number} {kind}" for kind, number in kinds if number)
    return f"{len(wrong)} of {len(rows)} runs are not finished ({how}): {named}."


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write results.csv, a row a run, and curves.csv, the metrics of all of them."""
    write_text(folder / "results.csv", _as_csv(list(rows[0]), rows))
    axes = list(rows[0])[: list(rows[0]).index("status")]
    write_text(folder / "curves.csv", _as_csv([*axes, *_CURVE], _curves(folder, rows, axes)))


def _curves(folder: Path, rows: Iterable[Mapping[str, Any]], axes: Sequence[str]) -> Iterable[dict[str, Any]]:
    for row in rows:
        if row["status"] == FINISHED:
            own = {name: row[name] for name in axes}
            metrics = RunDirectory(folder / row["run"]).read_metrics()
            for values in zip(*(metrics[name] for name in _CURVE), strict=True):
                yield {**own, **{name: _number(value) for name, value in zip(_CURVE, values, strict=True)}}


def _number(value: float) -> float | int | None:
    if value != value:  # an empty cell is nan
        return None
    return int(value) if value.is_integer() else value


def _as_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
