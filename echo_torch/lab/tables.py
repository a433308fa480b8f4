"""Tables over seeds: accuracy with its interval, and when it was reached."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from echo_torch.files import write_text
from echo_torch.intervals import mean_and_interval, wilson_interval
from echo_torch.lab.run_directory import RunDirectory

SEQUENCE_SYMBOLS = 25  # "sequences to 99 %" counts fresh symbols in the tutorial's sequences, whatever the mode
FEW_SEEDS = 4  # fewer are shown each by itself
_SKILL = 0.99
_WINDOW_SYMBOLS = 100 * SEQUENCE_SYMBOLS


def over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The accuracy of some seeds: mean, half of its 95 % interval, each seed; means with the state reset and by chunk.

    The interval is Student's over the seeds, but never narrower than that of sampling all their targets: few seeds can
    lie closer together, by accident, than the targets tell.

    Args:
        runs: Of each seed `accuracy`, `accuracy_reset`, `accuracy_by_chunk` and `targets`, as in result.json.
    """
    accuracies = [run["accuracy"] for run in runs]
    if not runs or None in accuracies:  # where nothing is asked
        names = ("accuracy", "accuracy_half_interval", "accuracy_reset")
        return {**dict.fromkeys(names), "accuracies": accuracies, "accuracy_by_chunk": []}
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


RESULT_COLUMNS = ("accuracy (95 %)", "evaluated with the state reset", "sequences to 99 %")


def result_cells(row: dict[str, Any]) -> list[str]:
    """The cells that belong to `RESULT_COLUMNS`."""
    reset = "-" if row["accuracy_reset"] is None else f"{row['accuracy_reset']:.2%}"
    return [with_interval(row), reset, _time_in_words(row)]


def size_axis(names: Container[str]) -> str:
    """Which option of `lags` tells networks of different sizes apart: of a user's own model its arguments."""
    return "hidden_size" if "hidden_size" in names else "model_options"


def markdown_table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A markdown table of these columns."""
    rows = [names, ["---"] * len(names), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def with_interval(row: dict[str, Any]) -> str:
    """'99.90% ± 0.10%'; of few seeds the values themselves, '67.76%, 98.10%': an interval of them says too little."""
    if row["accuracy"] is None:
        return "-"
    if len(row["accuracies"]) < FEW_SEEDS:
        return ", ".join(f"{accuracy:.2%}" for accuracy in row["accuracies"])
    return f"{row['accuracy']:.2%} ± {row['accuracy_half_interval']:.2%}"


def time_to_skill(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """Sequences to 99 %: mean over the seeds that got there, half of its 95 % interval, how many did, of how many.

    Args:
        runs: The finished runs of the seeds.
    """
    reached = [symbols_to_skill(run.read_metrics()) for run in runs]
    times = [symbols / SEQUENCE_SYMBOLS for symbols in reached if symbols is not None]
    mean, half = mean_and_interval(times) if times else (None, None)
    return {
        "sequences_to_99": mean,
        "sequences_to_99_by_seed": times,
        "sequences_to_99_half_interval": half,
        "seeds_to_99": len(times),
        "seeds": len(runs),
    }


def _time_in_words(row: dict[str, Any]) -> str:
    """'1,218 ± 15 (9 of 10 seeds)': the values themselves where few seeds got there, how many did where not all did."""
    times = row["sequences_to_99_by_seed"]
    if not row["seeds"]:
        return "-"
    if not times:
        return f"not within {row['sequences']:,.0f}"
    if len(times) < FEW_SEEDS:
        reached = "; ".join(f"{time:,.0f}" for time in times)
    else:
        reached = f"{row['sequences_to_99']:,.0f} ± {row['sequences_to_99_half_interval']:,.0f}"
    return reached + (f" ({row['seeds_to_99']} of {row['seeds']} seeds)" if row["seeds_to_99"] < row["seeds"] else "")


def write_table(folder: Path, name: str, rows: Sequence[dict[str, Any]], table: str) -> None:
    """The table as name.md and, with all digits, as name.json."""
    write_text(folder / f"{name}.json", json.dumps(list(rows), indent=2) + "\n")
    write_text(folder / f"{name}.md", table + "\n")
