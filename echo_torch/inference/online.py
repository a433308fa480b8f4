"""A trained network fed one number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import torch
from torch import Tensor, nn

from echo_torch.data.own_symbols import MAX_LINE
from echo_torch.errors import RuleError
from echo_torch.lab.finished import load_model
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.models.encoding import most_likely, num_digits_of
from echo_torch.models.networks import EchoModel
from echo_torch.models.own_model import Network
from echo_torch.models.state import reset_state

_MAX_LOOKED_UP = 2000  # symbols whose one-hot vectors are kept: 16 MB


_MAX_DIGITS = 10


_NAMED_SYMBOLS = 10_000


class OnlineEcho:
    """A trained network fed one number at a time for each of its lanes, for ever, in constant memory.

        echo = OnlineEcho.load("runs/aligned-seed1")
        for number in numbers:
            answer, = echo.step([number])

    >>> from echo_torch import EchoLSTM
    >>> echo = OnlineEcho(EchoLSTM(10, 50), num_lanes=3)
    >>> len(echo.step([3, 1, 4]))
    3

    Args:
        model: The network, `EchoLSTM` or anything with `forward(symbols, state)` and `initial_state(lanes)`.
        num_lanes: Independent streams side by side, at least 1.
        window_length: Steps that are read anew for each answer, as a network trained on windows wants it; None: the
            state is carried. The first window_length - 1 answers come from windows that are not full yet.
        vocabulary_size: Number of different symbols; None: the model's attribute of that name.

    Attributes:
        state: Everything it remembers: the network's state, or the last window. Save it and set it again, to go on
            from there.

    Raises:
        RuleError: If there is no lane, or nobody says how many symbols there are.
    """

    def __init__(
        self,
        model: nn.Module,
        num_lanes: int = 1,
        *,
        window_length: int | None = None,
        vocabulary_size: int | None = None,
    ) -> None:
        if num_lanes < 1:
            raise RuleError("num_lanes", "$num_lanes must be at least 1", num_lanes)
        self.model = cast("Network", model.eval())
        self.num_lanes = num_lanes
        size = getattr(model, "vocabulary_size", None) if vocabulary_size is None else vocabulary_size
        if not isinstance(size, int):
            rule = "$vocabulary_size must say how many symbols there are where the model does not"
            raise RuleError("vocabulary_size", rule)
        self.vocabulary_size = size
        self._num_digits = num_digits_of(model)
        self._window_length = window_length
        # The networks here read symbols that are encoded already. One-hot vectors are looked up, which is five times
        # as quick as making them; the last one is for -1.
        self._encoded = model if isinstance(model, EchoModel) and type(model).forward is EchoModel.forward else None
        self._vectors: Tensor | None = None
        if self._encoded is not None and size <= _MAX_LOOKED_UP and self._num_digits == 1:
            self._vectors = _encode(self._encoded, torch.arange(-1, size).roll(-1))
        self.state: Any = None
        self.reset()

    @classmethod
    def load(
        cls, run: str | Path, num_lanes: int = 1, *, model: str | None = None, allow_changed_model: bool = False
    ) -> OnlineEcho:
        """The network of a run directory. One trained on windows reads each from an empty state.

        Args:
            run: The directory.
            num_lanes: As of the class.
            model: The model again, where it is a class of a user's own, like what follows as of `load_model`.
            allow_changed_model: Whether its source may have changed.

        Raises:
            UserError: If it holds no finished run.
            RuleError: If the model is not the run's, or its source has changed.
        """
        configuration, found = load_model(RunDirectory(Path(run)), model=model, allow_changed_model=allow_changed_model)
        window, size = configuration.reading.online_window, configuration.vocabulary_size
        return cls(found, num_lanes, window_length=window, vocabulary_size=size)

    def step(self, symbols: Sequence[int]) -> list[int]:
        """Read one number for each lane and answer each.

        Args:
            symbols: `num_lanes` integers 0..vocabulary_size-1; -1: this lane's number is missing.

        Returns:
            One answer for each lane.

        Raises:
            RuleError: If there is not one number for each lane, or one is not in the vocabulary; nothing is read then.
        """
        if len(symbols) != self.num_lanes:
            raise RuleError(
                "symbols", f"$symbols must hold one number for each of the {self.num_lanes} lanes", len(symbols)
            )
        low, high = min(symbols), max(symbols)
        if low < -1 or high >= self.vocabulary_size:
            wrong = low if low < -1 else high
            raise RuleError("symbols", f"$symbols must lie in 0..{self.vocabulary_size - 1}", wrong)
        with torch.inference_mode():
            column = torch.from_numpy(np.array(symbols, dtype=np.int64)).unsqueeze(1)
            if self._window_length is None:
                logits, self.state = self._read(column, low, self.state)
            else:
                self.state = torch.cat([self.state[:, 1:], column], dim=1)
                logits, _ = self._read(self.state, -1, self._fresh())
            answers: list[int] = most_likely(logits[:, -1], self._num_digits).tolist()
        return answers

    def _read(self, symbols: Tensor, low: int, state: Any) -> tuple[Tensor, Any]:
        if self._encoded is None:
            logits, state = self.model(symbols, state)
            return logits, state
        if self._vectors is None:
            return self._encoded.read_encoded(_encode(self._encoded, symbols), state)
        if low < 0:
            symbols = torch.where(symbols < 0, len(self._vectors) - 1, symbols)
        return self._encoded.read_encoded(torch.nn.functional.embedding(symbols, self._vectors), state)

    def _fresh(self) -> Any:
        """A first state, made anew each time: a model may write into the one it is given."""
        with torch.inference_mode():
            return self.model.initial_state(self.num_lanes)

    def reset(self, lanes: Sequence[int] | None = None) -> None:
        """Forget what some lanes have read; None: all of them."""
        if lanes is None:
            is_window = self._window_length is not None
            empty = torch.full((self.num_lanes, self._window_length or 1), -1)
            self.state = empty if is_window else self._fresh()
            return
        starts = torch.zeros(self.num_lanes, dtype=torch.bool)
        starts[list(lanes)] = True
        with torch.inference_mode():
            if self._window_length is None:
                self.state = reset_state(self.state, starts, self.model.initial_state)
            else:
                self.state = self.state.masked_fill(starts[:, None], -1)


def _encode(model: EchoModel, symbols: Tensor) -> Tensor:
    return model.encoding.encode_checked(symbols, model.head.weight.dtype)


def read_lines(file: TextIO) -> Iterator[str]:
    """The lines of a text as they come in; of one that is too long the beginning, and the rest is never held.

    Args:
        file: A pipe, a terminal or a file.

    Yields:
        Each line; one with more than `MAX_LINE` characters as its first `MAX_LINE` + 1.
    """
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith("\n"):
            line = file.readline(MAX_LINE + 1)


def answer_lines(
    echo: OnlineEcho, lines: Iterable[str], say: Callable[[str], None], complain: Callable[[str], None]
) -> None:
    """Feed lines of numbers and say the answers, a line for each as soon as it was read.

    A line holds one number for each lane, separated by blanks; the line "reset" makes all lanes forget and is not
    answered. A line that is neither is complained of and changes nothing.

    Args:
        echo: The network.
        lines: What comes in; `read_lines` bounds it.
        say: Takes the line of answers.
        complain: Takes a sentence with the number of the bad line.
    """
    # Looked up rather than converted, for speed; what is not in the table takes the longer way.
    names = [str(symbol) for symbol in range(min(echo.vocabulary_size, _NAMED_SYMBOLS))]
    named = {name: symbol for symbol, name in enumerate(names)}
    for number, line in enumerate(lines, start=1):
        try:
            if len(line) > MAX_LINE:
                rule = f"$symbols must have at most {MAX_LINE:,} characters"
                raise RuleError("symbols", rule, "a longer one", reason="because it is held in memory")
            words = line.split()
            if words == ["reset"]:
                echo.reset()
                continue
            is_named = all(map(named.__contains__, words))
            answers = echo.step([named[word] if is_named else _number(word) for word in words])
        except RuleError as error:
            complain(f"line {number}: {error.wording(lambda name: 'the line')}")
            continue
        say(" ".join([names[answer] if answer < len(names) else str(answer) for answer in answers]))


def _number(word: str) -> int:
    # Not int() alone: it also takes signs, underscores and digits of other scripts.
    if not (word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS):
        raise RuleError("symbols", "every entry must be a whole number >= 0", repr(word[:30]))
    return int(word)
