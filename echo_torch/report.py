"""Finished runs as words and pictures; the only part that draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from echo_torch.experiments import Configuration
from echo_torch.files import whole_file
from echo_torch.results import RunDirectory


def draw_curve(run: RunDirectory, configuration: Configuration) -> None:
    """Draw loss and accuracy against the sequences drawn, chance marked, into curve.png.

    Args:
        run: A run with metrics.csv.
        configuration: Its configuration.
    """
    metrics = run.read_metrics()
    chance = 1 / configuration.vocabulary_size
    figure, (upper, lower) = plt.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    drawn, label = _drawn(configuration, metrics)
    upper.plot(drawn, metrics["accuracy"], color="C0", marker=_marker(metrics))
    upper.axhline(chance, color="0.4", linestyle="--", label=f"chance, 1/{configuration.vocabulary_size}")
    upper.set(ylabel="accuracy", ylim=(-0.03, 1.03), title=_title(configuration))
    upper.legend(loc="center right")
    lower.plot(drawn, metrics["loss"], color="C1", marker=_marker(metrics))
    lower.axhline(log(configuration.vocabulary_size), color="0.4", linestyle="--", label="loss of a uniform guess")
    lower.set(ylabel="loss (nats)", xlabel=label)
    lower.set_ylim(bottom=0)
    lower.legend(loc="best")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    _save(figure, run.curve)


def draw_side_by_side(runs: Sequence[RunDirectory], path: str | Path) -> None:
    """Draw the accuracy of several runs over their training, a panel for each, into one picture.

    Args:
        runs: Finished runs.
        path: The PNG file.
    """
    width = 3.6 * len(runs)
    figure, panels = plt.subplots(1, len(runs), sharey=True, squeeze=False, figsize=(width, 3), layout="constrained")
    for axes, run in zip(panels[0], runs, strict=True):
        configuration, metrics = run.read_config(), run.read_metrics()
        axes.plot(metrics["sequences"], metrics["accuracy"], color="C0")
        axes.axhline(1 / configuration.vocabulary_size, color="0.4", linestyle="--", label="chance")
        axes.set(ylim=(-0.03, 1.03), title=_title(configuration), xlabel="sequences drawn")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("accuracy in training")
    panels[0][0].legend(loc="center right")
    _save(figure, path)


def result_lines(result: dict[str, Any], expected: list[int], predicted: list[int]) -> list[str]:
    """What the evaluation found, and one sequence in the tutorial's form.

    Args:
        result: As in result.json, or the part of it that an evaluation makes.
        expected: The symbols asked in one sequence.
        predicted: The network's answers.
    """
    interval = f"95 % interval {result['accuracy_low']:.2%} to {result['accuracy_high']:.2%}"
    return [
        f"accuracy {result['accuracy']:.2%} ({interval}) on {result['targets']:,} fresh targets; "
        f"loss {result['loss']:.4f} nats; chance {result['chance']:.2%}",
        f"Expected:  {expected}",
        f"Predicted: {predicted}",
    ]


def _drawn(c: Configuration, metrics: dict[str, list[float]]) -> tuple[list[float], str]:
    """The data used so far, and what the axis is called: sequences where their number means something."""
    if c.length is None:
        return metrics["symbols"], "fresh symbols drawn"
    return metrics["sequences"], f"sequences of {c.length} symbols drawn"


def _save(figure: Figure, path: str | Path) -> None:
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def _marker(metrics: dict[str, list[float]]) -> str:
    return "o" if len(metrics["update"]) < 20 else ""


def _title(c: Configuration) -> str:
    return f"{c.mode}: lag {c.lag}, {c.vocabulary_size} symbols, seed {c.seed}"
