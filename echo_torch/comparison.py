"""The comparison of reach, horizon and carry, and the map of lag against chunk length: runs and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_torch.builders import build_reach
from echo_torch.experiments import Configuration, configure
from echo_torch.files import write_text
from echo_torch.results import RunDirectory
from echo_torch.sweep import mean_and_interval

SEQUENCE_SYMBOLS = 25  # "sequences to 99 %" counts fresh symbols in the tutorial's sequences, whatever the mode
_SKILL = 0.99
_WINDOW_SYMBOLS = 100 * SEQUENCE_SYMBOLS

# Without the cut a sequence makes one update instead of four; this budget lets lag 6 get to its ceiling.
_UNCUT: dict[str, Any] = {"cut": "sequence", "sequences": 4000, "learning_rate": 3e-3}


# Lag 4 lies inside the MLP's window of five symbols, lag 5 outside.
_OUTSIDE: dict[str, Any] = {"vocabulary_size": 10, "chunk": 10, "updates": 4000, "log_every": 10}


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
        Arm("aligned-1", "aligned lanes, chunks of 1", "aligned", {"chunk": 1, "updates": 8000}),
        Arm("aligned-5", "aligned lanes, chunks of 5", "aligned", {"chunk": 5, "updates": 2000, "log_every": 16}),
        Arm("lag", "lag (windows), state carried", "lag", {}),
        Arm("lag-reset", "lag (windows), state reset", "lag", {"carry": "reset"}),
        Arm("lag-batch4", "lag (windows), batches of 4", "lag", {"batch_size": 4}, is_default=False),
        Arm("lag-batch10", "lag (windows), batches of 10", "lag", {"batch_size": 10}, is_default=False),
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
    accuracies = [results[name]["accuracy"] for name in names]
    mean, half = mean_and_interval(accuracies)
    metrics = RunDirectory(folder / names[0]).read_metrics()
    return {
        "arm": arm.name,
        "label": arm.label,
        "cut": arm.configuration(1).cut,
        "gap": found.gap,
        "reachable_share": found.reachable_share,
        "in_horizon_share": found.in_horizon_share,
        "ceiling": found.ceiling,
        "accuracy": mean,
        "accuracy_half_interval": half,
        "accuracies": accuracies,
        **_time_to_skill([RunDirectory(folder / name) for name in names]),
        "updates": results[names[0]]["updates"],
        "sequences": metrics["symbols"][-1] / SEQUENCE_SYMBOLS,
        "chance": results[names[0]]["chance"],
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
    names: tuple[str, ...] = (
        "arm",
        "gap",
        "reachable",
        "in horizon",
        "ceiling",
        "accuracy (95 % over seeds)",
        "sequences to 99 %",
    )
    names += ("updates", "sequences")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        gap = "several" if row["gap"] is None else row["gap"]
        lines.append(
            f"| {row['label']} | {gap} | {row['reachable_share']:.1%} | {row['in_horizon_share']:.1%} | "
            f"{row['ceiling']:.1%} | {with_interval(row)} | {_reached(row)} | {row['updates']:,} | "
            f"{row['sequences']:,.0f} |"
        )
    return "\n".join(lines)


def with_interval(row: dict[str, Any]) -> str:
    """'99.9 % +- 0.1', the interval only where there are several seeds."""
    half = row["accuracy_half_interval"]
    return f"{row['accuracy']:.2%}" if half is None else f"{row['accuracy']:.2%} ± {half:.2%}"


@dataclass(frozen=True)
class Grid:
    """Runs over two options: lag down, another one across.

    Attributes:
        mode: The experiment.
        lags: One row each.
        across: The option that the columns differ in.
        values: Its values, one column each.
        num_seeds: Seeds 1..n.
        options: For every run.
    """

    mode: str
    lags: tuple[int, ...]
    across: str
    values: tuple[int, ...]
    num_seeds: int
    options: dict[str, Any]

    def runs(self) -> dict[str, Configuration]:
        """The runs by name."""
        return {
            self.name(lag, value, seed): configure(
                self.mode, lag=lag, seed=seed, accelerator="cpu", **{self.across: value}, **self.options
            )
            for lag in self.lags
            for value in self.values
            for seed in range(1, self.num_seeds + 1)
        }

    def name(self, lag: int, value: int, seed: int) -> str:
        """A run's name."""
        return f"lag{lag}-{self.across.replace('_', '')}{value}-seed{seed}"

    def cells(self, results: dict[str, dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        """For every cell the mean accuracy with its interval, sequences to 99 %, seconds and size.

        Args:
            results: By the names of `runs`.
            folder: Where the runs are.
        """
        return [self._cell(lag, value, results, folder) for lag in self.lags for value in self.values]

    def _cell(self, lag: int, value: int, results: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
        names = [self.name(lag, value, seed) for seed in range(1, self.num_seeds + 1)]
        mean, half = mean_and_interval([results[name]["accuracy"] for name in names])
        return {
            "lag": lag,
            self.across: value,
            "accuracy": mean,
            "accuracy_half_interval": half,
            **_time_to_skill([RunDirectory(folder / name) for name in names]),
            "seconds": mean_and_interval([results[name]["seconds"] for name in names])[0],
            "parameters": results[names[0]]["parameters"],
        }


def _time_to_skill(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    reached = [symbols_to_skill(run.read_metrics()) for run in runs]
    times = [symbols / SEQUENCE_SYMBOLS for symbols in reached if symbols is not None]
    mean = mean_and_interval(times)[0] if times else None
    return {"sequences_to_99": mean, "seeds_to_99": len(times), "seeds": len(runs)}


def map_table(grid: Grid, cells: Sequence[dict[str, Any]]) -> str:
    """The cells as a markdown table, lags down and the other option across."""
    lines = ["| lag | " + " | ".join(f"{grid.across} {value}" for value in grid.values) + " |"]
    lines.append("|---" * (len(grid.values) + 1) + "|")
    by_place = {(cell["lag"], cell[grid.across]): cell for cell in cells}
    for lag in grid.lags:
        texts = [with_interval(by_place[lag, value]) for value in grid.values]
        lines.append(f"| {lag} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def lags_table(cells: Sequence[dict[str, Any]]) -> str:
    """A row for each lag and hidden size: skill, time to it, seconds and size, as markdown."""
    names = ("lag", "hidden size", "accuracy (95 % over seeds)", "sequences to 99 %", "seconds", "parameters")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for cell in cells:
        lines.append(
            f"| {cell['lag']} | {cell['hidden_size']} | {with_interval(cell)} | {_reached(cell)} | "
            f"{cell['seconds']:.1f} | {cell['parameters']:,} |"
        )
    return "\n".join(lines)


def _reached(row: dict[str, Any]) -> str:
    reached = "never" if row["sequences_to_99"] is None else f"{row['sequences_to_99']:,.0f}"
    if 0 < row["seeds_to_99"] < row["seeds"]:
        reached += f" ({row['seeds_to_99']} of {row['seeds']} seeds)"
    return reached


def write_table(folder: Path, name: str, rows: Sequence[dict[str, Any]], table: str) -> None:
    """The table as name.md and, with all digits, as name.json."""
    write_text(folder / f"{name}.json", json.dumps(list(rows), indent=2) + "\n")
    write_text(folder / f"{name}.md", table + "\n")
