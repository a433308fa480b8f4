"""The borders inside a block of batches, looked at in a few array operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.auditing.borders import Ends
from echo_torch.diagnosis.data_path.reaching import OTHER
from echo_torch.diagnosis.stamps import Stamps


class Within(NamedTuple):
    """What the borders inside a block show.

    Attributes:
        gaps: How often each gap occurred.
        num_faults: How many of them are faults.
        ends: Where the lanes end after the block.
    """

    gaps: Counter[int | str]
    num_faults: int
    ends: Ends


def is_block(stamps: Stamps) -> bool:
    """Whether stamps are those of several batches: steps (batches, lanes, steps)."""
    return np.ndim(stamps.step) == 3


def each_of(stamps: Stamps) -> Iterator[Stamps]:
    """The stamps of each batch of a block."""
    fields = zip(stamps.step, stamps.sequence, stamps.starts, strict=True)  # type: ignore[arg-type]  # arrays
    return (Stamps(*of_one) for of_one in fields)


def within(stamps: Stamps, ends: Ends) -> Within | None:
    """Compare where each batch of a block begins with where the one before it ends, all at once.

    Args:
        stamps: Of the block: step int64 (batches, lanes, steps), sequence int64 and starts bool (batches, lanes), and
            nothing else.
        ends: Where the lanes end after its first batch.

    Returns:
        None where that must be looked at batch by batch: a lane goes on that had nothing to read before.
    """
    step, sequence, starts = np.asarray(stamps.step), np.asarray(stamps.sequence), np.asarray(stamps.starts)
    is_place = step >= 0
    has_read = np.logical_or.reduce(is_place, axis=2)
    has_read_before = np.concatenate([(has_read[0] | ends[2])[None], has_read[1:-1]])
    goes_on = ~starts[1:] & has_read[1:]
    if (goes_on & ~has_read_before).any() or not (has_read[-1] | has_read[-2]).all():
        return None
    first, last = _first_and_last(step, is_place)
    last[0], names = ends[0], sequence.copy()
    names[0] = ends[1]
    is_other = goes_on & (names[1:] != names[:-1])
    gap = first[1:] - last[:-1] - 1
    gaps: Counter[int | str] = Counter()
    for size, number in zip(*np.unique(gap[goes_on & ~is_other], return_counts=True), strict=True):
        gaps[int(size)] = int(number)
    if num_other := int(np.count_nonzero(is_other)):
        gaps[OTHER] = num_other
    return Within(gaps, gaps.total() - gaps[0], _ends(last, names, has_read, starts))


def _first_and_last(step: Integers, is_place: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """The first and the last step that each lane of each batch reads, (batches, lanes); if none, anything."""
    if is_place.all():
        return step[..., 0], step[..., -1].copy()
    begin = is_place.argmax(axis=2)[..., None]
    end = step.shape[2] - 1 - is_place[..., ::-1].argmax(axis=2)[..., None]
    return np.take_along_axis(step, begin, 2)[..., 0], np.take_along_axis(step, end, 2)[..., 0]


def _ends(last: Integers, names: Integers, has_read: NDArray[np.bool_], starts: NDArray[np.bool_]) -> Ends:
    """Where the lanes end; one that reads nothing in the last batch stays where it was, unless it was reset."""
    reads = has_read[-1]
    return np.where(reads, last[-1], last[-2]), np.where(reads, names[-1], names[-2]), reads | ~starts[-1]
