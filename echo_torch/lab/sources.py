"""What symbols a run reads: random ones, or a user's own, which end and are read once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

from echo_torch.data.own_symbols import OwnNumbers, OwnSymbols, line_above, open_numbers, split_bounds
from echo_torch.data.random_symbols import RandomSymbols
from echo_torch.data.stream import Source
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.readings import Bounded, Reading


class Symbols(ABC):
    """The symbols of a run, split into training and evaluation, and how its reading goes through them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    @property
    def digest(self) -> str | None:
        """A fingerprint of symbols that could change; None where they cannot."""
        return None

    @property
    def reading(self) -> Reading:
        """The run's reading, as it goes through the training's symbols."""
        return self._configuration.reading

    @property
    @abstractmethod
    def uniform_over(self) -> int | None:
        """Of how many equally likely values each symbol is one; None: nobody knows how far they can be guessed."""

    @abstractmethod
    def source(self, split: str) -> Source:
        """Places -> symbols, of a split."""

    @abstractmethod
    def evaluation(self, num_sequences: int) -> Bounded:
        """What an evaluation reads."""

    @abstractmethod
    def example(self) -> Bounded:
        """The part of it that is shown as an example."""


class Random(Symbols):
    """Symbols drawn independently, without end."""

    @property
    def uniform_over(self) -> int:
        """As of `Symbols`."""
        return self._configuration.vocabulary_size

    def source(self, split: str) -> Source:
        """As of `Symbols`."""
        return RandomSymbols(self._configuration.vocabulary_size, self._configuration.seed, split)

    def evaluation(self, num_sequences: int) -> Bounded:
        """As of `Symbols`."""
        return self.reading.evaluation(num_sequences)

    def example(self) -> Bounded:
        """As of `Symbols`."""
        return self.reading.example()


class Own(Symbols):
    """The numbers of a user's file, of which the last ones are held out for the evaluation.

    Args:
        configuration: Of the run.
        numbers: Its data where they are open already; None: they are opened when they are needed.
    """

    def __init__(self, configuration: Configuration, numbers: OwnNumbers | None = None) -> None:
        super().__init__(configuration)
        self._opened = numbers

    uniform_over = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the numbers and of where their series begin."""
        return self._numbers.digest

    @cached_property
    def reading(self) -> Reading:
        """As of `Symbols`."""
        return self._configuration.reading.over_pieces(self._piece_length("training"))

    def source(self, split: str) -> OwnSymbols:
        """As of `Symbols`.

        Raises:
            UserError: If the numbers do not fit the configuration.
        """
        return self._training if split == "training" else self._held_out

    def evaluation(self, num_sequences: int) -> Bounded:
        """As of `Symbols`: all held-out numbers once, however many there are."""
        held_out = self._held_out
        return self._configuration.reading.held_out(held_out.piece_length, held_out.num_pieces)

    def example(self) -> Bounded:
        """As of `Symbols`."""
        return self._configuration.reading.held_out_example(self._held_out.piece_length)

    @cached_property
    def _numbers(self) -> OwnNumbers:
        c = self._configuration
        return self._opened or open_numbers(str(c.data), column=c.column, series=c.series)

    @cached_property
    def _training(self) -> OwnSymbols:
        return self._split("training")

    @cached_property
    def _held_out(self) -> OwnSymbols:
        return self._split("evaluation")

    def _piece_length(self, split: str) -> int:
        low, high = split_bounds(len(self._numbers.numbers), split)
        return self._configuration.reading.piece_length(high - low)

    def _split(self, split: str) -> OwnSymbols:
        c = self._configuration
        path = str(c.data)
        if self._numbers.largest >= c.vocabulary_size:
            line = line_above(path, c.vocabulary_size - 1, column=c.column)
            raise UserError(
                f"{path!r} line {line}: every number must be below {c.vocabulary_size}, the number of symbols, but the "
                f"largest is {self._numbers.largest}.",
                f"Make $vocabulary_size at least {self._numbers.largest + 1}.",
            )
        source = OwnSymbols(self._numbers, split, self._piece_length(split))
        if source.longest < (needed := c.reading.shortest):
            lanes = int(c.options().get("lanes") or 1)
            is_shared = lanes > 1 and source.longest == source.piece_length  # a lane reads a part of a longer series
            short = f"too short for {lanes:,} lanes" if is_shared else "too short"
            least = "each of them reads" if is_shared else "its longest series leaves"
            raise UserError(
                f"{path!r} is {short}: for {split} {least} {source.longest} number{'s' * (source.longest != 1)}, and "
                f"{needed} are needed to ask one question (the last tenth of the file is for evaluation).",
                "Take fewer $lanes." if is_shared else "",
            )
        return source


def symbols_of(configuration: Configuration, numbers: OwnNumbers | None = None) -> Symbols:
    """The symbols of a run.

    Args:
        configuration: Of the run.
        numbers: Its own data, where they are open already.
    """
    return Random(configuration) if configuration.data is None else Own(configuration, numbers)
