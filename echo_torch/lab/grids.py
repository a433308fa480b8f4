"""Runs over all combinations of some options, and their tables: the map and the lags."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_torch.experiments.configuration import Configuration, configure
from echo_torch.intervals import mean_and_interval
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.tables import (
    _RESULTS,
    SEQUENCE_SYMBOLS,
    _markdown,
    _results,
    _time_to_skill,
    over_seeds,
    with_interval,
)


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
