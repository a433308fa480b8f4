"""The comparison of reach, horizon and carry, and the map of lag against chunk length: runs and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError, suggest
from echo_torch.experiments.configuration import Configuration, configure
from echo_torch.lab.many import train_many
from echo_torch.lab.pictures import check_figures, picture, remove_other_forms
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import PAGE, RunDirectory
from echo_torch.lab.tables import (
    RESULT_COLUMNS,
    SEQUENCE_SYMBOLS,
    markdown_table,
    over_seeds,
    result_cells,
    time_to_skill,
    write_table,
)

COMPARISON = "comparison.json"  # beside the runs: what was found
# Without the cut a sequence makes one update instead of four; this budget lets lag 6 get to its ceiling.
_UNCUT_RECIPE: dict[str, Any] = {"sequences": 4000, "learning_rate": 3e-3}
_UNCUT: dict[str, Any] = {"cut": "sequence", **_UNCUT_RECIPE}
# Of `lag` with the answer at the far end of the window, where the handed-over state gets in the way.
_FAR: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("state carried", {}),
    "-reset": ("state reset", {"carry": "reset"}),
    "-batch4": ("batches of 4", {"batch_size": 4}),
    "-batch10": ("batches of 10", {"batch_size": 10}),
    "-batch20": ("batches of 20: no hand-over", {"batch_size": 20}),
    "-uncut": ("no cut, as many updates", {"cut": "sequence", "updates": 8000}),
}
# Lag 4 lies inside the MLP's window of five symbols, lag 5 outside.
_OUTSIDE: dict[str, Any] = {"vocabulary_size": 10, "chunk": 10, "updates": 4000, "log_every": 10}


def _chunk_of_one(learning_rate: float) -> dict[str, Any]:
    return {"chunk": 1, "updates": 8000, "learning_rate": learning_rate}


@dataclass(frozen=True)
class Arm:
    """One way of training in the comparison.

    Attributes:
        name: As it is chosen with --arms.
        label: What it is, for tables and figures.
        mode: The experiment.
        options: What differs from its defaults.
        is_default: Whether it is trained where no arms are named.
    """

    name: str
    label: str
    mode: str
    options: dict[str, Any]
    is_default: bool = True

    def configuration(self, seed: int, **network: Any) -> Configuration:
        """The configuration of this arm with a seed.

        Args:
            seed: The seed.
            network: `model` and `model_options`; one that is None is the arm's own.
        """
        chosen = {name: value for name, value in network.items() if value is not None}
        return configure(self.mode, seed=seed, accelerator="cpu", **{**self.options, **chosen})


# Rows of metrics come at least every 3,200 symbols, so that "sequences to 99 %" is told to about 130.
ARMS = {
    arm.name: arm
    for arm in (
        Arm("stateful", "stateful, lag 1", "stateful", {}),
        Arm("stateful-uncut", "stateful, lag 1, no cut", "stateful", _UNCUT),
        Arm("stateful-lag6", "stateful, lag 6", "stateful", {"lag": 6}),
        Arm("stateful-lag6-uncut", "stateful, lag 6, no cut", "stateful", {"lag": 6, **_UNCUT}),
        Arm("stateful-lag6-matched", "stateful, lag 6, recipe of no cut", "stateful", {"lag": 6, **_UNCUT_RECIPE}),
        Arm("aligned-1", "aligned lanes, chunks of 1", "aligned", _chunk_of_one(3e-3)),
        Arm("aligned-5", "aligned lanes, chunks of 5", "aligned", {"chunk": 5, "updates": 2000, "log_every": 16}),
        Arm("lag", "lag (windows), state carried", "lag", {}),
        Arm("lag-reset", "lag (windows), state reset", "lag", {"carry": "reset"}),
        Arm("lag-batch4", "lag (windows), batches of 4", "lag", {"batch_size": 4}, is_default=False),
        Arm("lag-batch10", "lag (windows), batches of 10", "lag", {"batch_size": 10}, is_default=False),
        *(
            Arm(f"lag4{name}", f"lag 4, {label}", "lag", {"lag": 4, **options}, is_default=name in ("", "-reset"))
            for name, (label, options) in _FAR.items()
        ),
        *(
            Arm(f"aligned-1-rate{rate}", f"chunks of 1, rate {rate}", "aligned", _chunk_of_one(rate), False)
            for rate in (0.0003, 0.001, 0.01)
        ),
        Arm("masked", "masked (a window for every step)", "masked", {}, is_default=False),
        Arm("whole", "whole (the sequence so far)", "whole", {}, is_default=False),
        Arm("sequence", "sequence (one pass)", "sequence", {}, is_default=False),
        *(
            Arm(f"{model}-{lag}", f"{model}, lag {lag}", "aligned", {**_OUTSIDE, "model": model, "lag": lag}, False)
            for model in ("lstm", "mlp", "memoryless")
            for lag in (4, 5)
        ),
    )
}
DEFAULT_ARMS = tuple(arm.name for arm in ARMS.values() if arm.is_default)


def run_comparison(
    arms: Sequence[str] = DEFAULT_ARMS,
    num_seeds: int = 5,
    folder: str | Path = "runs/compare",
    *,
    model: str | None = None,
    model_options: Any = None,
    num_jobs: int | None = None,
    shard: str | None = None,
    progress: bool = False,
    figures: str = "png",
) -> list[dict[str, Any]]:
    """Train the arms that keep reach, horizon and carry apart; leave their runs, a table and figures in a folder.

    Args:
        arms: Names out of `ARMS`; one that is named twice counts once.
        num_seeds: Seeds 1..num_seeds for every arm.
        folder: Where everything goes. Finished runs there are kept, so an interrupted comparison goes on.
        model: The network of every arm, one of the words or a user's own; None: each arm's.
        model_options: Arguments of a user's own model.
        num_jobs: Processes; None: one for each core.
        shard: As of `train_many`; the last part to be done makes table and figures.
        progress: Whether a progress bar is drawn on standard error.
        figures: "svg" draws figures as SVG.

    Returns:
        A row for each arm, as in comparison.json; `comparison_table` makes text of them. None where runs are left to
        other parts.

    Raises:
        RuleError: If there is no such arm, or it is about a network of its own and another one is given.
        UserError: If the folder cannot be used.
        Interrupted: At Ctrl-C and SIGTERM; finished runs stay.
    """
    folder, arms, figures = Path(folder), list(dict.fromkeys(arms)), check_figures(figures)
    for arm in arms:
        if arm not in ARMS:
            rule = f"$arms must be out of {', '.join(ARMS)}"
            raise RuleError("arms", rule, f"{arm!r}{suggest(arm, ARMS)}")
        if model is not None and "model" in ARMS[arm].options:
            rule = "$arms must leave the network to $model where it is given"
            raise RuleError("arms", rule, f"{arm}, which is about the network {ARMS[arm].options['model']}")
    network = {"model": model, "model_options": model_options}
    runs = comparison_runs(arms, num_seeds, **network)

    def begin() -> None:
        (folder / PAGE).unlink(missing_ok=True)  # it shows what was found before

    results = train_many(runs, folder, num_jobs=num_jobs, shard=shard, progress=progress, begin=begin)
    if len(results) < len(runs):
        return []
    rows = compare(arms, num_seeds, results, folder)
    write_table(folder, COMPARISON.removesuffix(".json"), rows, comparison_table(rows))

    from echo_torch.lab.figures import draw_comparison, draw_reach_by_horizon

    curves, squares = (picture(folder, name, figures) for name in ("curves", "reach_by_horizon"))
    draw_comparison(rows, directories_of(arms, num_seeds, folder), curves)
    draw_reach_by_horizon(rows, squares)
    for path in (curves, squares):
        remove_other_forms(path)
    return rows


def comparison_runs(arms: Sequence[str], num_seeds: int, **network: Any) -> dict[str, Configuration]:
    """The runs of a comparison by name: every arm with the seeds 1..num_seeds, and a network as of `Arm`."""
    return {
        name: ARMS[arm].configuration(seed, **network)
        for arm in arms
        for seed, name in enumerate(names_of(arm, num_seeds), start=1)
    }


def names_of(arm: str, num_seeds: int) -> list[str]:
    """The names of an arm's runs, a seed each."""
    return [f"{arm}-seed{seed}" for seed in range(1, num_seeds + 1)]


def directories_of(arms: Sequence[str], num_seeds: int, folder: Path) -> dict[str, list[RunDirectory]]:
    """The runs of each arm, where they are."""
    return {arm: [RunDirectory(folder / name) for name in names_of(arm, num_seeds)] for arm in arms}


def compare(
    arms: Sequence[str], num_seeds: int, results: dict[str, dict[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """A row for each arm: what its data path allows and what was learned.

    Args:
        arms: Names out of `ARMS`.
        num_seeds: Seeds 1..num_seeds.
        results: By the names of `comparison_runs`.
        folder: Where the runs are.
    """
    return [_compare_arm(ARMS[arm], num_seeds, results, folder) for arm in arms]


def _compare_arm(arm: Arm, num_seeds: int, results: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    found = Plan(arm.configuration(1)).reach()
    names = names_of(arm.name, num_seeds)
    runs = [results[name] for name in names]
    metrics = RunDirectory(folder / names[0]).read_metrics()
    return {
        "arm": arm.name,
        "label": arm.label,
        "cut": arm.configuration(1).reading.cut,
        "gap": found.gap,
        "reachable_share": found.reachable_share,
        "in_horizon_share": found.in_horizon_share,
        "ceiling": found.ceiling,
        **over_seeds(runs),
        **time_to_skill([RunDirectory(folder / name) for name in names]),
        "updates": runs[0]["updates"],
        "sequences": metrics["symbols"][-1] / SEQUENCE_SYMBOLS,
        "chance": runs[0]["chance"],
    }


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    return markdown_table(*comparison_lines(rows))


def comparison_lines(rows: Sequence[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    """The names of the columns of that table, and a line for each arm."""
    names = ("arm", "gap", "reachable", "in horizon", "ceiling", *RESULT_COLUMNS, "updates", "sequences")
    lines = []
    for row in rows:
        shares = (f"{row[name]:.1%}" for name in ("reachable_share", "in_horizon_share", "ceiling"))
        gap = "several" if row["gap"] is None else str(row["gap"])
        lines.append(
            [row["label"], gap, *shares, *result_cells(row), f"{row['updates']:,}", f"{row['sequences']:,.0f}"]
        )
    return names, lines
