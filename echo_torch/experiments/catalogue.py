"""The named experiments, as data: a reading for each, what is fixed in it, its defaults and its claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from echo_torch.experiments.model_options import Value
from echo_torch.experiments.options import OPTIONS, option_names
from echo_torch.experiments.readings import Lanes, Prefixes, Reading, Sequences, Windows


@dataclass(frozen=True)
class Experiment:
    """An experiment as data.

    Attributes:
        name: The mode.
        summary: What it is, in a line.
        reading: The way of reading.
        defaults: The values that differ from the options' own.
        fixed: Fields of the reading that make the experiment what it is; they are no flags here.
        claim: What evaluation must show at the defaults: "accuracy >= 0.99" or "chance".
        tutorial_result: Accuracy that the tutorial reports; None: it has no such experiment.
    """

    name: str
    summary: str
    reading: type[Reading]
    defaults: Mapping[str, Value]
    fixed: Mapping[str, Any]
    claim: str
    tutorial_result: float | None = None

    @cached_property
    def reading_options(self) -> list[str]:
        """The names of the options of its reading."""
        return [name for name in option_names(self.reading) if name not in self.fixed]

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The names of the options it uses, in the order of `OPTIONS`."""
        of_readings = {name for experiment in EXPERIMENTS.values() for name in option_names(experiment.reading)}
        return tuple(name for name in OPTIONS if name in self.reading_options or name not in of_readings)


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "echo",
            "repeat the symbol just read",
            Windows,
            {"sequences": 500, "batch_size": 1, "hidden_size": 15, "carry": "reset"},
            {"lag": 0, "window": 1},
            claim="accuracy >= 0.99",
            tutorial_result=1.0,
        ),
        Experiment(
            "stateful",
            "the symbol one step ago, one step at a time: the beginner's mistake",
            Windows,
            {"batch_size": 6},
            {"window": 1, "num_dropped": 1},
            claim="chance",
            tutorial_result=0.0,
        ),
        Experiment(
            "lag",
            "the symbol one step ago, with a window of context",
            Windows,
            {},
            {"num_dropped": 1, "holds_lag": True},
            claim="accuracy >= 0.99",
            tutorial_result=1.0,
        ),
        Experiment(
            "masked",
            "as lag, with a window for every step, empty before the sequence",
            Windows,
            {},
            {"is_masked": True, "holds_lag": True},
            claim="accuracy >= 0.99",
        ),
        Experiment(
            "whole",
            "the symbol one step ago, from the sequence as it has unfolded so far",
            Prefixes,
            {},
            {},
            claim="accuracy >= 0.99",
        ),
        Experiment(
            "sequence",
            "the symbol one step ago at every step, a sequence in one pass",
            Sequences,
            {"batch_size": 1, "learning_rate": 3e-3},
            {},
            claim="accuracy >= 0.99",
        ),
        Experiment(
            "aligned",
            "the symbol one step ago at every step, lanes read on without a gap",
            Lanes,
            {"updates": 2000, "learning_rate": 3e-3},
            {},
            claim="accuracy >= 0.99",
        ),
    )
}
