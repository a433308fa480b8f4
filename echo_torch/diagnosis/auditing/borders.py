"""Where the lanes of a batch begin and end: all that is compared from one batch to the next."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.stamps import NOT_PUT_IN, Stamps, checked_restored

Flags: TypeAlias = NDArray[np.bool_]
Ends: TypeAlias = tuple[Integers, Integers, Flags]  # the last step of each lane, its sequence, and whether it is known


class Border(NamedTuple):
    """Where each lane of a batch begins and ends, a value for each lane.

    Attributes:
        first: The first step that it reads, and `last` the last one.
        last: As `first`; both mean nothing where nothing is read.
        sequence: Of the first step, and `last_sequence` of the last one.
        last_sequence: As `sequence`.
        starts: Whether its state is reset before its first step.
        is_emptied: Whether its state is reset after its last step.
        has_read: Whether it reads at all.
        restored: The last step that a state put in for it has read; -1 where none is put in.
    """

    first: Integers
    last: Integers
    sequence: Integers
    last_sequence: Integers
    starts: Flags
    is_emptied: Flags
    has_read: Flags
    restored: Integers

    def is_beginning(self) -> bool:
        """Whether all lanes are reset and read, so that nothing of the batch before matters."""
        return bool(self.starts.all() and self.has_read.all() and (self.restored < 0).all())


def border_of(stamps: Stamps, step: Integers, sequence: Integers, starts: Flags) -> Border:
    """The border of a batch.

    A reset inside a row, after its first step, is none at its border: the state at the end is that of the last stretch.

    Args:
        stamps: Of the batch, for what is put in from a buffer.
        step: Integers (lanes, steps), as `checked_places` gives it.
        sequence: Integers (lanes,) or (lanes, steps).
        starts: Booleans (lanes,) or (lanes, steps).
    """
    is_place = step >= 0
    rows, columns = np.arange(len(step)), np.arange(step.shape[1])
    begin = is_place.argmax(axis=1)
    end = step.shape[1] - 1 - is_place[:, ::-1].argmax(axis=1)
    has_read = np.logical_or.reduce(is_place, axis=1)
    if starts.ndim == 1:
        is_start, is_emptied = starts, np.zeros_like(starts)
    else:
        is_start = (starts & ((columns <= begin[:, None]) | ~has_read[:, None])).any(axis=1)
        is_emptied = (starts & (columns > end[:, None]) & has_read[:, None]).any(axis=1)
    restored = checked_restored(stamps)
    restored = np.full(len(step), NOT_PUT_IN) if restored is None else restored
    return Border(
        first=step[rows, begin],
        last=step[rows, end],
        sequence=sequence if sequence.ndim == 1 else sequence[rows, begin],
        last_sequence=sequence if sequence.ndim == 1 else sequence[rows, end],
        starts=is_start,
        is_emptied=is_emptied,
        has_read=has_read,
        restored=restored if restored.ndim == 1 else restored[rows, begin],
    )


class Faults(NamedTuple):
    """What is right and wrong at a border, a value for each lane but for the last.

    Attributes:
        last: The step at which the lane's state ends, and `last_sequence` its sequence.
        last_sequence: As `last`.
        gap: The steps between it and the lane's first one.
        is_continued: Whether the lane goes on from a known place.
        is_other: Whether it goes on in another sequence.
        is_wrong: Whether it goes on elsewhere than its state ends.
        num_before: The lanes of the state where it goes on in a batch that has others; 0 where it fits.
    """

    last: Integers
    last_sequence: Integers
    gap: Integers
    is_continued: Flags
    is_other: Flags
    is_wrong: Flags
    num_before: int


def faults_of(border: Border, ends: Ends | None, goes_on: Flags) -> Faults:
    """Compare where a batch begins with where its lanes' states end.

    Args:
        border: Of the batch.
        ends: Of the batch before; None where there is none.
        goes_on: Booleans (lanes,): which lanes are compared.
    """
    is_restored = border.restored >= 0
    last, last_sequence, is_known, num_before = border.restored, border.sequence, is_restored, 0
    if ends is not None and len(ends[0]) == len(last):
        last = np.where(is_restored, last, ends[0])
        last_sequence = np.where(is_restored, last_sequence, ends[1])
        is_known = is_known | ends[2]
    elif ends is not None and (goes_on & ~is_restored).any():
        num_before = len(ends[0])
    gap = border.first - last - 1
    is_continued = is_known & goes_on & border.has_read
    is_other = (border.sequence != last_sequence) & is_continued
    return Faults(last, last_sequence, gap, is_continued, is_other, (gap != 0) & is_continued | is_other, num_before)


def ends_after(border: Border, ends: Ends | None, is_handed: Flags) -> Ends:
    """Where the lanes end after a batch: those that read nothing keep their place, unless they were reset.

    Args:
        border: Of the batch.
        ends: Of the batch before; None where there is none.
        is_handed: Booleans (lanes,): which lanes have gone on in the batch.
    """
    has_read, is_known = border.has_read, border.has_read & ~border.is_emptied
    if ends is None or len(ends[0]) != len(border.last):
        return border.last, border.last_sequence, is_known
    last, sequence, was_known = ends
    is_known |= ~has_read & was_known & is_handed
    return np.where(has_read, border.last, last), np.where(has_read, border.last_sequence, sequence), is_known


def one_column(values: NDArray[Any]) -> NDArray[Any] | None:
    """A value for each lane where that can be said without looking at all columns; else None."""
    if values.ndim == 1:
        return values
    return values[:, 0] if values.shape[1] == 1 or values.strides[1] == 0 else None
