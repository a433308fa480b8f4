"""Reading a stream without learning from it: what a model gets right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from echo_torch.chunk import Chunk
from echo_torch.encoding import NOT_ASKED, count_asked, count_correct, loss_sum, most_likely, num_digits_of
from echo_torch.state import RecurrentModel, reset_state

_Z_95 = 1.959964  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Evaluation:
    """Counts pooled over all asked targets.

    Attributes:
        correct: Answers that were right.
        asked: Targets that were asked.
        loss_sum: Cross-entropy in nats, summed over them.
    """

    correct: int
    asked: int
    loss_sum: float

    @property
    def accuracy(self) -> float | None:
        """Correct / asked; None where nothing was asked."""
        return self.correct / self.asked if self.asked else None

    @property
    def loss(self) -> float | None:
        """Mean cross-entropy in nats; None where nothing was asked."""
        return self.loss_sum / self.asked if self.asked else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy; None where nothing was asked."""
        return wilson_interval(self.correct, self.asked) if self.asked else None


def evaluate(model: RecurrentModel[Any], chunks: Iterable[Chunk]) -> Evaluation:
    """Ask a model every target of some chunks, the state carried and reset as they say.

    Args:
        model: Anything with `forward(symbols, state) -> (logits, state)` and `initial_state(lanes)`.
        chunks: In stream order; every chunk has the same lanes.

    Returns:
        The pooled counts.
    """
    counts, num_digits = torch.zeros(3, dtype=torch.float64), num_digits_of(model)
    for chunk, logits in read(model, chunks):
        targets = chunk.targets
        correct = count_correct(logits, targets, num_digits)
        parts = (correct, count_asked(targets), loss_sum(logits, targets, num_digits))
        counts = counts.to(logits.device) + torch.stack([part.double() for part in parts])
    num_correct, asked, total = counts.tolist()
    return Evaluation(int(num_correct), int(asked), total)


def answers(model: RecurrentModel[Any], chunks: Iterable[Chunk]) -> tuple[list[int], list[int]]:
    """What was asked and what the model answered, in the order of the steps.

    Args:
        model: As in `evaluate`.
        chunks: All of one sequence.

    Returns:
        (expected, predicted): two lists of symbols, one entry for each asked target.
    """
    found: list[tuple[int, int, int]] = []
    for chunk, logits in read(model, chunks):
        targets, predicted = chunk.targets.cpu(), most_likely(logits, num_digits_of(model)).cpu()
        asked = targets != NOT_ASKED
        found += zip(*(values[asked].tolist() for values in (chunk.step, targets, predicted)), strict=True)
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
    state = None
    for chunk in chunks:
        with torch.no_grad():
            state = model.initial_state(len(chunk.symbols)) if state is None else state
            chunk = chunk.to(state[0].device)
            logits, state = model(chunk.symbols, reset_state(state, chunk.starts))
        yield chunk, logits


def wilson_interval(correct: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for a share.

    Args:
        correct: Successes, 0 <= correct <= asked.
        asked: Trials, at least 1.

    Returns:
        (low, high), within 0..1.

    Source:
        Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    share, z2 = correct / asked, _Z_95**2
    centre = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z_95 / (1 + z2 / asked) * sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    # At the ends the interval reaches 0 or 1 exactly; rounding would miss them.
    return (centre - half if correct else 0.0), (centre + half if correct < asked else 1.0)
