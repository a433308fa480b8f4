"""Reading a stream without learning from it: what a model gets right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.data.stream import num_chunks_of
from echo_torch.errors import RuleError
from echo_torch.intervals import wilson_interval
from echo_torch.models.encoding import count_all, loss_sum, most_likely, num_digits_of
from echo_torch.models.networks import EchoModel
from echo_torch.models.state import RecurrentModel, device_of, initial_state_of
from echo_torch.training.carry import Carry
from echo_torch.training.joined import Placed, ResetChunks, joined, with_places
from echo_torch.waiting import Progress, Waiting, size_in_words

_NUMBERS_AT_A_TIME = 2**20  # logits; more leave the caches and gain nothing


@dataclass(frozen=True)
class Evaluation:
    """Counts pooled over all asked targets.

    >>> found = Evaluation(correct=97, asked=100, loss_sum=12.5)
    >>> found.accuracy, found.loss, [round(bound, 3) for bound in found.interval]
    (0.97, 0.125, [0.915, 0.99])

    Attributes:
        correct: Answers that were right.
        asked: Targets that were asked.
        loss_sum: Cross-entropy in nats, summed over them.
        by_chunk: (correct, asked) for the first, second, ... chunk of a sequence, pooled over sequences and lanes.
            A state that is handed over shows from the second on.
    """

    correct: int
    asked: int
    loss_sum: float
    by_chunk: tuple[tuple[int, int], ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Correct / asked; None where nothing was asked."""
        return self.correct / self.asked if self.asked else None

    @property
    def loss(self) -> float | None:
        """Mean cross-entropy in nats; None where nothing was asked."""
        return self.loss_sum / self.asked if self.asked else None

    @property
    def accuracy_by_chunk(self) -> list[float | None]:
        """Correct / asked for each chunk of a sequence; None where nothing was asked in it."""
        return [correct / asked if asked else None for correct, asked in self.by_chunk]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy; None where nothing was asked."""
        return wilson_interval(self.correct, self.asked) if self.asked else None


def evaluate(
    model: RecurrentModel[Any],
    chunks: Iterable[Chunk],
    *,
    max_chunks: int | None = None,
    progress: Progress = False,
    doing: str = "Evaluating",
) -> Evaluation:
    """Ask a model every target of some chunks, the state carried and reset as they say.

    >>> from echo_torch import EchoLSTM, EchoStream, LaneLayout, RandomSymbols
    >>> stream = EchoStream(LaneLayout(num_lanes=4, chunk_length=5, lag=1), RandomSymbols(10), num_chunks=3)
    >>> evaluate(EchoLSTM(10, 4), stream).asked
    56

    Args:
        model: Anything with `forward(symbols, state) -> (logits, state)` and `initial_state(lanes)`.
        chunks: In stream order; every chunk has the same lanes.
        max_chunks: How many chunks of a sequence are told apart in `by_chunk`, at least 1; the last one has the
            later ones too. None: all.
        progress: Whether a progress bar is drawn on standard error where it takes longer than two seconds; "line": a
            sentence says how long it takes.
        doing: What stands before it.

    Returns:
        The pooled counts.

    Raises:
        RuleError: If `max_chunks` is below 1.
    """
    if max_chunks is not None and max_chunks < 1:
        raise RuleError("max_chunks", "$max_chunks must be at least 1, or None for all chunks", max_chunks)
    total, num_digits = torch.zeros((), dtype=torch.float64), num_digits_of(model)
    by_chunk = torch.zeros((0, 2), dtype=torch.int64)
    num_places = 0
    with _waiting(doing, chunks, progress) as waiting:
        for (chunk, place, number), logits in _read(model, _placed(model, chunks)):
            targets = chunk.targets
            is_right = most_likely(logits, num_digits).eq(targets)  # a target that is not asked equals no symbol
            counts = torch.stack([is_right, targets.ne(NOT_ASKED)], dim=-1).flatten(0, 1).long()
            place = (place if max_chunks is None else place.clamp(max=max_chunks - 1)).flatten()
            num_places = max(num_places, int(place.max()) + 1)
            by_chunk = by_chunk.to(counts.device)
            if num_places > len(by_chunk):  # twice as many, or each chunk of a long sequence would cost all before it
                by_chunk = torch.cat([by_chunk, counts.new_zeros(2 * num_places - len(by_chunk), 2)])
            by_chunk.index_add_(0, place.to(counts.device), counts)
            total = total.to(logits.device) + loss_sum(logits, targets, num_digits)
            waiting.done += number
    by_chunk = by_chunk[:num_places]
    correct, asked = by_chunk.sum(0).tolist()
    return Evaluation(correct, asked, total.item(), tuple((right, number) for right, number in by_chunk.tolist()))


def counts_of(model: RecurrentModel[Any], chunks: Iterable[Chunk]) -> Tensor:
    """What a model answers, added up chunk by chunk as a validation does it.

    Args:
        model: As of `evaluate`.
        chunks: As of `evaluate`.

    Returns:
        float64 (3,): loss sum, right answers, asked targets.
    """
    counts, num_digits = torch.zeros(3, dtype=torch.float64), num_digits_of(model)
    for chunk, logits in read(model, chunks):
        counted = count_all(logits, chunk.targets, loss_sum(logits, chunk.targets, num_digits), num_digits)
        counts = counts.to(counted.device) + counted
    return counts.cpu()


def _placed(model: RecurrentModel[Any], chunks: Iterable[Chunk]) -> Iterator[Placed]:
    """The chunks in the order in which they are read: to our own networks, whose lanes do not mix, many at a time."""
    if isinstance(model, EchoModel):
        return joined(chunks, _NUMBERS_AT_A_TIME // model.encoding.size)
    return with_places(chunks)


def _waiting(doing: str, chunks: Iterable[Chunk], progress: Progress) -> Waiting:
    layout = getattr(chunks, "layout", None)
    size = "" if layout is None else size_in_words(layout.num_lanes, layout.num_steps)
    return Waiting(doing, num_chunks_of(chunks), "chunks", progress=progress, step=size)


def reset_at_every_chunk(chunks: Iterable[Chunk]) -> Iterable[Chunk]:
    """Chunks as they are, but each read from an empty state: what a model answers without what is handed over.

    Args:
        chunks: In stream order.

    Returns:
        Each chunk with `starts` true for every lane.
    """
    return ResetChunks(chunks)


def answers(
    model: RecurrentModel[Any], chunks: Iterable[Chunk], *, progress: Progress = False
) -> tuple[list[int], list[int]]:
    """What was asked and what the model answered, in the order of the steps.

    Args:
        model: As in `evaluate`.
        chunks: All of one sequence.
        progress: As in `evaluate`.

    Returns:
        (expected, predicted): two lists of symbols, one entry for each asked target.
    """
    found: list[tuple[int, int, int]] = []
    with _waiting("Answering one sequence", chunks, progress) as waiting:
        for chunk, logits in read(model, chunks):
            targets, predicted = chunk.targets.cpu(), most_likely(logits, num_digits_of(model)).cpu()
            asked = targets != NOT_ASKED
            found += zip(*(values[asked].tolist() for values in (chunk.step, targets, predicted)), strict=True)
            waiting.done += 1
    found.sort()
    return [target for _, target, _ in found], [answer for _, _, answer in found]


def read(model: RecurrentModel[Any], chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, Tensor]]:
    """Lead a model through some chunks without gradients.

    Args:
        model: As in `evaluate`. It works on the device of its own initial state.
        chunks: In stream order; every chunk has the same lanes.

    Yields:
        Each chunk with its logits (lanes, steps, vocabulary_size).
    """
    return ((placed.chunk, logits) for placed, logits in _read(model, with_places(chunks)))


def _read(model: RecurrentModel[Any], placed: Iterable[Placed]) -> Iterator[tuple[Placed, Tensor]]:
    carry = Carry(initial_state_of(model))
    for one in placed:
        with torch.no_grad():
            state = carry.begin(one.chunk.starts, "test")
            chunk = one.chunk.to(device_of(state))
            logits, state = model(chunk.symbols, state)
        carry.end(state)
        yield one._replace(chunk=chunk), logits
