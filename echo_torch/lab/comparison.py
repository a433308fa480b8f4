"""The comparison of reach, horizon and carry, and the map of lag against chunk length: runs and tables."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_torch.experiments.configuration import Configuration, configure
from echo_torch.files import write_text
from echo_torch.lab.plan import build_reach
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.sweep import mean_and_interval
from echo_torch.training.evaluation import wilson_interval

SEQUENCE_SYMBOLS = 25  # "sequences to 99 %" counts fresh symbols in the tutorial's sequences, whatever the mode
_SKILL = 0.99
_WINDOW_SYMBOLS = 100 * SEQUENCE_SYMBOLS

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

    def configuration(self, seed: int) -> Configuration:
        """Its configuration with a seed."""
        return configure(self.mode, seed=seed, accelerator="cpu", **self.options)


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


def comparison_runs(arms: Sequence[str], num_seeds: int) -> dict[str, Configuration]:
    """The runs of a comparison by name: every arm with the seeds 1..num_seeds."""
    return {f"{arm}-seed{seed}": ARMS[arm].configuration(seed) for arm in arms for seed in range(1, num_seeds + 1)}


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
    found = build_reach(arm.configuration(1))
    names = [f"{arm.name}-seed{seed}" for seed in range(1, num_seeds + 1)]
    runs = [results[name] for name in names]
    metrics = RunDirectory(folder / names[0]).read_metrics()
    return {
        "arm": arm.name,
        "label": arm.label,
        "cut": arm.configuration(1).cut,
        "gap": found.gap,
        "reachable_share": found.reachable_share,
        "in_horizon_share": found.in_horizon_share,
        "ceiling": found.ceiling,
        **over_seeds(runs),
        **_time_to_skill([RunDirectory(folder / name) for name in names]),
        "updates": runs[0]["updates"],
        "sequences": metrics["symbols"][-1] / SEQUENCE_SYMBOLS,
        "chance": runs[0]["chance"],
    }


def over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The accuracy of some seeds: mean, half of its 95 % interval, each seed; means with the state reset and by chunk.

    The interval is Student's over the seeds, but never narrower than that of sampling all their targets: few seeds can
    lie closer together, by accident, than the targets tell.

    Args:
        runs: Of each seed `accuracy`, `accuracy_reset`, `accuracy_by_chunk` and `targets`, as in result.json.
    """
    accuracies = [run["accuracy"] for run in runs]
    mean, half = mean_and_interval(accuracies)
    low, high = wilson_interval(sum(round(r["accuracy"] * r["targets"]) for r in runs), sum(r["targets"] for r in runs))
    return {
        "accuracy": mean,
        "accuracy_half_interval": max(half or 0.0, (high - low) / 2),
        "accuracies": accuracies,
        "accuracy_reset": mean_and_interval([run["accuracy_reset"] for run in runs])[0],
        "accuracy_by_chunk": [
            None if None in shares else mean_and_interval(shares)[0]
            for shares in zip(*(run["accuracy_by_chunk"] for run in runs), strict=True)
        ],
    }


def symbols_to_skill(metrics: dict[str, list[float]], skill: float = _SKILL) -> float | None:
    """Fresh symbols drawn when the accuracy over the last 2,500 of them first was at least `skill`; None: never.

    Args:
        metrics: Columns of metrics.csv.
        skill: The accuracy asked.
    """
    correct = [0.0]
    asked = [0.0]
    symbols = [0.0, *metrics["symbols"]]
    for accuracy, targets in zip(metrics["accuracy"], metrics["targets"], strict=True):
        correct.append(correct[-1] + (accuracy * targets if targets else 0.0))
        asked.append(asked[-1] + targets)
    begin = 0
    for row in range(1, len(symbols)):
        while begin + 1 < row and symbols[row] - symbols[begin + 1] >= _WINDOW_SYMBOLS:
            begin += 1
        is_full = symbols[row] - symbols[begin] >= _WINDOW_SYMBOLS
        span = asked[row] - asked[begin]
        if is_full and span and (correct[row] - correct[begin]) / span >= skill:
            return symbols[row]
    return None


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    names = ("arm", "gap", "reachable", "in horizon", "ceiling", *_RESULTS, "updates", "sequences")
    lines = []
    for row in rows:
        shares = (f"{row[name]:.1%}" for name in ("reachable_share", "in_horizon_share", "ceiling"))
        gap = "several" if row["gap"] is None else str(row["gap"])
        lines.append([row["label"], gap, *shares, *_results(row), f"{row['updates']:,}", f"{row['sequences']:,.0f}"])
    return _markdown(names, lines)


_RESULTS = ("accuracy (95 %)", "evaluated with the state reset", "sequences to 99 %")


def _results(row: dict[str, Any]) -> list[str]:
    """The cells that belong to `_RESULTS`."""
    return [with_interval(row), f"{row['accuracy_reset']:.2%}", _reached(row)]


def _markdown(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [names, ["---"] * len(names), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def with_interval(row: dict[str, Any]) -> str:
    """'99.90% ± 0.10%'."""
    return f"{row['accuracy']:.2%} ± {row['accuracy_half_interval']:.2%}"


@dataclass(frozen=True)
class Grid:
    """Runs over all combinations of some options.

    Attributes:
        mode: The experiment.
        axes: The options that differ, each with its values.
        num_seeds: Seeds 1..n.
        options: For every run.
    """

    mode: str
    axes: Mapping[str, Sequence[Any]]
    num_seeds: int
    options: Mapping[str, Any]

    def places(self) -> list[dict[str, Any]]:
        """Every combination, the first axis the slowest."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def runs(self) -> dict[str, Configuration]:
        """The runs by name."""
        return {
            name: configure(self.mode, seed=seed, accelerator="cpu", **place, **self.options)
            for place in self.places()
            for seed, name in enumerate(self.names(place), start=1)
        }

    def names(self, place: Mapping[str, Any]) -> list[str]:
        """The names of one combination's runs, a seed each."""
        words = [f"{axis.replace('_', '')}{value}" for axis, value in place.items()]
        return ["-".join([*words, f"seed{seed}"]) for seed in range(1, self.num_seeds + 1)]

    def cells(self, results: Mapping[str, dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        """For every combination the accuracy with its interval, sequences to 99 %, seconds and size.

        Args:
            results: By the names of `runs`.
            folder: Where the runs are.
        """
        return [self._cell(place, results, folder) for place in self.places()]

    def _cell(self, place: dict[str, Any], results: Mapping[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
        names = self.names(place)
        runs = [results[name] for name in names]
        directories = [RunDirectory(folder / name) for name in names]
        return {
            **place,
            **over_seeds(runs),
            **_time_to_skill(directories),
            "sequences": directories[0].read_metrics()["symbols"][-1] / SEQUENCE_SYMBOLS,
            "seconds": mean_and_interval([run["seconds"] for run in runs])[0],
            "parameters": runs[0]["parameters"],
        }


def _time_to_skill(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    reached = [symbols_to_skill(run.read_metrics()) for run in runs]
    times = [symbols / SEQUENCE_SYMBOLS for symbols in reached if symbols is not None]
    mean, half = mean_and_interval(times) if times else (None, None)
    return {
        "sequences_to_99": mean,
        "sequences_to_99_half_interval": half,
        "seeds_to_99": len(times),
        "seeds": len(runs),
    }


def map_table(grid: Grid, cells: Sequence[dict[str, Any]]) -> str:
    """The accuracy of the cells as a markdown table: learning rates and lags down, chunks across."""
    by_place = {(cell["learning_rate"], cell["lag"], cell["chunk"]): cell for cell in cells}
    chunks = grid.axes["chunk"]
    lines = [
        [f"{rate:g}", str(lag), *(with_interval(by_place[rate, lag, chunk]) for chunk in chunks)]
        for rate in grid.axes["learning_rate"]
        for lag in grid.axes["lag"]
    ]
    return _markdown(["learning rate", "lag", *(f"chunk {chunk}" for chunk in chunks)], lines)


def lags_table(cells: Sequence[dict[str, Any]]) -> str:
    """A row for each lag, hidden size and carry: skill, time to it, seconds and size, as markdown."""
    words = {"keep": "carried", "reset": "reset"}
    lines = [
        [
            str(cell["lag"]),
            str(cell["hidden_size"]),
            words[cell["carry"]],
            *_results(cell),
            f"{cell['seconds']:.1f}",
            f"{cell['parameters']:,}",
        ]
        for cell in cells
    ]
    return _markdown(["lag", "hidden size", "state", *_RESULTS, "seconds", "parameters"], lines)


def _reached(row: dict[str, Any]) -> str:
    """'1,218 ± 15 (9 of 10 seeds)': the interval where at least two seeds got there, the seeds where not all did."""
    if row["sequences_to_99"] is None:
        return f"not within {row['sequences']:,.0f}"
    half = row["sequences_to_99_half_interval"]
    reached = f"{row['sequences_to_99']:,.0f}" + ("" if half is None else f" ± {half:,.0f}")
    return reached + (f" ({row['seeds_to_99']} of {row['seeds']} seeds)" if row["seeds_to_99"] < row["seeds"] else "")


def write_table(folder: Path, name: str, rows: Sequence[dict[str, Any]], table: str) -> None:
    """The table as name.md and, with all digits, as name.json."""
    write_text(folder / f"{name}.json", json.dumps(list(rows), indent=2) + "\n")
    write_text(folder / f"{name}.md", table + "\n")
