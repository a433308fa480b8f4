"""A trained network fed by hand: a list of numbers, or one number at a time for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.data.random_symbols import Integers
from echo_torch.data.stream import EchoStream
from echo_torch.errors import RuleError, plain, suggest
from echo_torch.experiments.configuration import Configuration
from echo_torch.lab.finished import load_model
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.models.encoding import most_likely, num_digits_of, top_symbols
from echo_torch.models.own_model import Network
from echo_torch.training.evaluation import read
from echo_torch.waiting import Progress, Waiting

STATES = ("carried", "fresh")
_ROWS_PER_BLOCK = 2**11  # enough to be quick, little enough for any list
_MAX_REPLACEMENTS = 32
_MAX_EXPLAINED = 1000


class Answer(NamedTuple):
    """What the network says at one position of the input.

    Attributes:
        position: Where it is asked, counted from 0: the last number it had read.
        of: The position whose number it is to echo, `position - lag`.
        symbol: Its answer.
        top: The most likely symbols with their probabilities, the likeliest first.
    """

    position: int
    of: int
    symbol: int
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class EchoPredictor:
    """A trained network that answers lists.

        predictor = EchoPredictor.load("runs/lag-seed1")
        predictor.predict([1, 36, 0, 36, 21])

    The list is read as one sequence of the run's evaluation: cut into the same windows, batches and lanes. A window
    that the run drops at the front of a sequence is answered too, from an empty state.

    >>> from echo_torch import EchoLSTM, configure
    >>> untrained = EchoPredictor(configure("lag", vocabulary_size=10), EchoLSTM(10, 50))
    >>> len(untrained.predict([3, 1, 4, 1, 5, 9]))
    2

    Attributes:
        configuration: Of the run.
        model: Its network.
        state: "carried" hands the state from batch to batch, or from chunk to chunk of a lane, "fresh" reads each from
            an empty state. None takes what the run's training does, and becomes that word.

    Raises:
        RuleError: If the state is neither, or carried where no row of the run continues another.
    """

    configuration: Configuration
    model: Network
    state: str | None = None

    def __post_init__(self) -> None:
        reading = self.configuration.reading
        usual = "carried" if reading.carry == "keep" else "fresh"
        state = usual if self.state is None else self.state
        if state not in STATES:
            raise RuleError("state", f"$state must be one of {', '.join(STATES)}", f"{state!r}{suggest(state, STATES)}")
        if state == "carried" and not reading.continues:
            raise RuleError(
                "state",
                f"$state must be fresh in mode {self.configuration.mode}",
                "'carried'",
                reason="because each of its rows holds all that it needs and continues no other",
                way_out="leave it out",
            )
        object.__setattr__(self, "state", state)

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        state: str | None = None,
        model: str | None = None,
        allow_changed_model: bool = False,
    ) -> EchoPredictor:
        """The network of a run directory.

        Args:
            run: The directory.
            state: As of the class.
            model: The model again, where it is a class of a user's own, like what follows as of `load_model`.
            allow_changed_model: Whether its source may have changed.

        Raises:
            UserError: If it holds no finished run.
            RuleError: As of the class; or if the model is not the run's, or its source has changed.
        """
        found = load_model(RunDirectory(Path(run)), model=model, allow_changed_model=allow_changed_model)
        return cls(*found, state)

    @property
    def is_carried(self) -> bool:
        """Whether the state is handed over."""
        return self.state == "carried"

    def predict(self, symbols: Sequence[int]) -> list[int]:
        """The answers alone: for each position that has one, the echo of the number `lag` before it.

        Args:
            symbols: Integers 0..vocabulary_size-1, in the order of time.

        Returns:
            One integer for each of `answers(symbols)`.

        Raises:
            RuleError: If there are too few numbers, or one is not in the vocabulary.
        """
        return [answer.symbol for answer in self.answers(symbols, top_k=0)]

    def answers(self, symbols: Sequence[int], *, top_k: int = 1) -> list[Answer]:
        """The answers with their places and probabilities.

        Args:
            symbols: As in `predict`.
            top_k: So many symbols with probabilities for each answer; 0: none.

        Raises:
            RuleError: As in `predict`.
        """
        num_digits = num_digits_of(self.model)
        found: list[Answer] = []
        for chunk, logits in self._read(self._checked(symbols)[None]):
            is_asked = chunk.targets != NOT_ASKED
            positions, logits = chunk.step[is_asked], logits[is_asked]
            said = most_likely(logits, num_digits).tolist()
            top: list[list[tuple[int, float]]] = [[] for _ in said]
            if top_k and said:
                pairs = zip(*(part.tolist() for part in top_symbols(logits, top_k, num_digits)), strict=True)
                top = [list(zip(*pair, strict=True)) for pair in pairs]
            places = zip(positions.tolist(), (positions - self.configuration.reading.lag).tolist(), strict=True)
            found += [Answer(*place, *rest) for place, *rest in zip(places, said, top, strict=True)]
        return found

    def explain(self, symbols: Sequence[int], *, progress: Progress = False) -> list[float]:
        """How much the last answer depends on each number of the input.

        Every number is replaced by others (all of a small vocabulary, 32 of a large one), and it is counted how
        often that changes the answer at the last position.

        Args:
            symbols: As in `predict`.
            progress: Whether a progress bar is drawn on standard error where it takes longer than two seconds, as with
                hundreds of numbers; "line": a sentence says how long it takes.

        Returns:
            For each position the share of replacements that changed the answer, 0..1.

        Raises:
            RuleError: As in `predict`.
        """
        checked = self._checked(symbols)
        if len(checked) > _MAX_EXPLAINED:
            raise RuleError(
                "symbols",
                f"$symbols must hold at most {_MAX_EXPLAINED} numbers to be explained",
                len(checked),
                reason="because each is replaced in turn",
                way_out="give the last ones",
            )
        size = self.configuration.vocabulary_size
        last = self._last_answers(checked[None])[0]
        # Spread over the vocabulary, so that all digits of a symbol change.
        number = min(size - 1, _MAX_REPLACEMENTS)
        shifts = torch.tensor([1 + (size - 2) * index // max(1, number - 1) for index in range(number)])
        shares: list[float] = []
        blocks = torch.split(torch.arange(len(checked)), max(1, _ROWS_PER_BLOCK // number))
        with Waiting("Replacing each number in turn", len(checked), "numbers", progress=progress) as waiting:
            for positions in blocks:
                changed = checked.repeat(len(positions), number, 1)
                changed[torch.arange(len(positions)), :, positions] += shifts
                answers = self._last_answers(changed.remainder(size).flatten(0, 1))
                shares += answers.ne(last).double().view(len(positions), number).mean(dim=1).tolist()
                waiting.done = len(shares)
        return shares

    def _checked(self, symbols: Sequence[int]) -> Tensor:
        c = self.configuration
        values = torch.tensor(list(symbols), dtype=torch.int64) if len(symbols) else torch.zeros(0, dtype=torch.int64)
        needed, why = c.reading.list_needs
        if len(values) < needed:
            rule = f"$symbols must hold at least {needed} numbers for this run"
            raise RuleError("symbols", rule, len(values), reason=f"because {why}")
        wrong = ((values < 0) | (values >= c.vocabulary_size)).nonzero()
        if len(wrong):
            place = int(wrong[0])
            rule = f"$symbols must lie in 0..{c.vocabulary_size - 1}, the vocabulary of this run"
            raise RuleError("symbols", rule, f"{int(values[place])} at position {place}")
        return values

    def _read(self, lists: Tensor, *, only_last: bool = False) -> Iterator[tuple[Chunk, Tensor]]:
        """Lead the network through lists, (lists, positions), as through sequences of the run.

        Args:
            lists: All are read next to each other.
            only_last: Whether it is enough to read what the answers at the last position hang on.

        Yields:
            Chunks with their logits.
        """
        numbers = lists.numpy()

        def source(sequence: Integers, step: Integers) -> Integers:
            is_there = (sequence >= 0) & (step >= 0) & (step < numbers.shape[1])
            found: Integers = np.where(is_there, numbers[sequence * is_there, step * is_there], -1)
            return found

        reading = self.configuration.reading
        for layout, num_chunks in reading.lists(
            *lists.shape, is_carried=self.is_carried, rows_at_once=_ROWS_PER_BLOCK, only_last=only_last
        ):
            yield from read(self.model, EchoStream(layout, source, num_chunks=num_chunks))

    def _last_answers(self, lists: Tensor) -> Tensor:
        """The answers at the last position of several lists: (lists, positions) -> (lists,)."""
        answers = torch.zeros(len(lists), dtype=torch.int64)
        for chunk, logits in self._read(lists, only_last=True):
            is_last = (chunk.step == lists.shape[1] - 1) & (chunk.targets != NOT_ASKED)
            lanes, _ = is_last.nonzero(as_tuple=True)
            answers[chunk.sequence[lanes]] = most_likely(logits[is_last], num_digits_of(self.model))
        return answers


def guess_ahead(configuration: Configuration, model: Network, *, progress: Progress = False) -> tuple[int, int]:
    """How often the answer is, by luck, the random symbol that comes next.

    Args:
        configuration: Of a run on random symbols; its evaluation is read.
        model: Its network.
        progress: As of `evaluate`.

    Returns:
        (right, asked), over all questions after which another symbol follows.

    Raises:
        RuleError: If the run was trained on a user's own data, of which nobody knows how far it can be guessed.
    """
    plan = Plan(configuration)
    if not plan.is_uniform:
        rule = f"$ahead measures random numbers, and this run was trained on {plain(repr(configuration.data))}"
        raise RuleError("ahead", rule)
    right = asked = 0
    stream = plan.evaluation()
    end = configuration.reading.sequence_length
    with Waiting("Asking for the next number", stream.num_chunks, "chunks", progress=progress) as waiting:
        for chunk, logits in read(model, stream):
            after = chunk.step + 1
            is_asked = chunk.targets != NOT_ASKED
            if end is not None:
                is_asked &= after < end
            coming = torch.from_numpy(stream.source(chunk.sequence[:, None].numpy(), after.numpy()))
            right += int((most_likely(logits, num_digits_of(model)).eq(coming) & is_asked).sum())
            asked += int(is_asked.sum())
            waiting.done += 1
    return right, asked
