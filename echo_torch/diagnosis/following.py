"""Lanes followed through chunks: what each had read when it was asked, added up part by part.

A part ends where all lanes are reset: nothing that was read before is of use after it, so it need not be kept.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers

Booleans = NDArray[np.bool_]

_COLUMNS_AT_ONCE = 2**20  # of a part; a longer one has as many as there are between two resets of all lanes
_MANY_LOOKUPS = 2**26  # seconds of them
_WIDEST_CORRELATION = 2**24
_COST_OF_A_LAG = 400  # in lookups


class Columns(NamedTuple):
    """Columns of chunks, one after another, rows unravelled: 1-D arrays of one length.

    `stretch` numbers what one lane reads of one sequence between two resets, `visit` the part of it in one chunk,
    `life` what one lane reads between two resets of whatever sequence. `time` rises in the order of reading, and so
    does the place in the arrays, of each lane.
    """

    stretch: Integers
    visit: Integers
    life: Integers
    sequence: Integers
    step: Integers
    time: Integers
    is_read: Booleans
    is_asked: Booleans

    def where(self, mask: Booleans) -> Columns:
        """Some of them."""
        return Columns._make(field[mask] for field in self)


class _Piece(NamedTuple):
    """Chunks of one shape: `step` and what stands beside it (chunks, lanes, steps), the others (chunks, lanes)."""

    life: Integers
    sequence: Integers
    step: Integers
    is_read: Booleans
    is_asked: Booleans

    def part(self, which: slice) -> _Piece:
        return _Piece._make(field[which] for field in self)


class Followed:
    """What is found by following lanes, chunk after chunk.

    Args:
        lag: How many steps back the answers lie.
        max_lag: The largest lag that is looked for.

    Attributes:
        gaps: How often each gap lies between two successive reads of a sequence.
        num_other: Hand-overs into another sequence.
        is_reachable: bool (max_lag + 1,), the lags for which some asked target's symbol had been read.
        asked: Targets that were asked.
        read_before: Those whose answer the lane had read since its reset.
        read_in_chunk: Those whose answer was read inside the very chunk.
        num_chunks: Chunks that were followed.
    """

    def __init__(self, lag: int, max_lag: int) -> None:
        self._lag = lag
        self.gaps: Counter[int] = Counter()
        self.num_other = 0
        self.is_reachable = np.zeros(max_lag + 1, np.bool_)
        self.asked = self.read_before = self.read_in_chunk = self.num_chunks = 0
        self._resets = np.zeros(0, np.int64)  # of each lane, so far
        self._pieces: list[_Piece] = []
        self._num_columns = 0

    def add(self, step: Integers, sequence: Integers, starts: Booleans, is_read: Booleans, is_asked: Booleans) -> None:
        """Follow some more chunks of one shape.

        Args:
            step: As of `Stamps`, with one axis more, the chunks, before the others; so are the others.
            sequence: The same.
            starts: The same.
            is_read: The same.
            is_asked: The same.
        """
        num_chunks, num_lanes, num_steps = step.shape
        self._resets = np.append(self._resets, np.zeros(max(0, num_lanes - len(self._resets)), np.int64))
        resets = self._resets[:num_lanes] + np.cumsum(starts, axis=0)
        self._resets[:num_lanes] = resets[-1]
        piece = _Piece(np.arange(num_lanes) + 2**32 * resets, sequence, step, is_read, is_asked)
        self.num_chunks += num_chunks
        borders = np.flatnonzero(starts.all(axis=1) & (num_lanes == len(self._resets)))
        if len(borders) and self._num_columns + borders[-1] * num_lanes * num_steps >= _COLUMNS_AT_ONCE:
            self._keep(piece.part(slice(borders[-1])))
            self.close()
            piece = piece.part(slice(borders[-1], None))
        self._keep(piece)

    def _keep(self, piece: _Piece) -> None:
        if len(piece.step):
            self._pieces.append(piece)
            self._num_columns += piece.step.size

    def close(self) -> None:
        """Count what has been added; of the lanes' next chunks each must begin with a reset, or none follow."""
        if not self._pieces:
            return
        columns = _columns_of(self._pieces)
        self._pieces, self._num_columns = [], 0
        self._count_gaps(columns.where(columns.step >= 0))
        asks = columns.where(columns.is_asked)
        if not len(asks.step):
            return
        reads = columns.where(columns.is_read)
        first_reads = _FirstReads(reads.stretch, reads.step, reads.time)
        in_chunk = _FirstReads(reads.visit, reads.step, reads.time)
        self.asked += len(asks.step)
        self.read_before += int((first_reads.time_of(asks.stretch, asks.step - self._lag) <= asks.time).sum())
        self.read_in_chunk += int((in_chunk.time_of(asks.visit, asks.step - self._lag) <= asks.time).sum())
        _mark_reachable(self.is_reachable, first_reads, asks)

    def _count_gaps(self, reads: Columns) -> None:
        order = np.argsort(reads.life, kind="stable")
        life, sequence, step = reads.life[order], reads.sequence[order], reads.step[order]
        is_hand_over = life[1:] == life[:-1]
        is_same = sequence[1:] == sequence[:-1]
        values, counts = np.unique((step[1:] - step[:-1] - 1)[is_hand_over & is_same], return_counts=True)
        self.gaps.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        self.num_other += int((is_hand_over & ~is_same).sum())


def _columns_of(pieces: list[_Piece]) -> Columns:
    """All columns of some pieces."""
    per_lane = [np.concatenate([piece[field].ravel() for piece in pieces]) for field in range(2)]
    number = _numbered(*per_lane)
    widths = np.concatenate([np.full(piece.life.size, piece.step.shape[2]) for piece in pieces])
    of_lanes = (number, np.arange(len(number)), *per_lane)
    stretch, visit, life, sequence = (np.repeat(values, widths) for values in of_lanes)
    clock, times = 0, []
    for piece in pieces:
        num_chunks, _, num_steps = piece.step.shape
        begins = clock + num_steps * np.arange(num_chunks)
        times.append(np.broadcast_to(begins[:, None, None] + np.arange(num_steps), piece.step.shape).ravel())
        clock += num_chunks * num_steps
    step, is_read, is_asked = (np.concatenate([piece[field].ravel() for piece in pieces]) for field in range(2, 5))
    return Columns(stretch, visit, life, sequence, step, np.concatenate(times), is_read, is_asked)


def _numbered(life: Integers, sequence: Integers) -> Integers:
    """The same number for each pair of a life and a sequence."""
    order = np.lexsort((sequence, life))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (np.diff(life[order]) != 0) | (np.diff(sequence[order]) != 0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(is_new) - 1
    return number


class _FirstReads:
    """When each step was first read, within whatever is numbered by `part`."""

    NEVER = np.iinfo(np.int64).max

    def __init__(self, part: Integers, step: Integers, time: Integers) -> None:
        self._width = int(step.max(initial=0)) + 1
        key = part * self._width + step
        order = np.argsort(key, kind="stable")  # of equal ones the first comes first, as it was read
        key = key[order]
        is_first = np.ones(len(key), np.bool_)
        is_first[1:] = key[1:] != key[:-1]
        self._keys, self._times = key[is_first], time[order][is_first]

    def time_of(self, part: Integers, step: Integers) -> Integers:
        """The time of the first read; `NEVER` where there was none."""
        if not len(self._keys):
            return np.full(len(step), self.NEVER)
        key = part * self._width + step
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        is_found = (self._keys[place] == key) & (step >= 0) & (step < self._width)
        return np.where(is_found, self._times[place], self.NEVER)

    def of_part(self, part: int) -> tuple[Integers, Integers]:
        """The steps that were read in a part, rising, and when each was."""
        low, high = np.searchsorted(self._keys, [part * self._width, (part + 1) * self._width])
        return self._keys[low:high] - part * self._width, self._times[low:high]


def _mark_reachable(is_reachable: Booleans, first_reads: _FirstReads, asks: Columns) -> None:
    """Mark the lags for which some answer had been read."""
    left = np.flatnonzero(~is_reachable[: int(asks.step.max()) + 1])
    if len(left) * (len(asks.step) + _COST_OF_A_LAG) > _MANY_LOOKUPS:
        asks = _mark_by_correlation(is_reachable, first_reads, asks)
        left = left[~is_reachable[left]]
    if not len(asks.step):
        return
    # Mostly one of the last is enough: they come after most reads.
    some = slice(-1, -1000, -1)
    for lag in left.tolist():
        is_reachable[lag] = any(
            (first_reads.time_of(asks.stretch[which], asks.step[which] - lag) <= asks.time[which]).any()
            for which in (some, slice(None))
        )


def _mark_by_correlation(is_reachable: Booleans, first_reads: _FirstReads, asks: Columns) -> Columns:
    """Mark all lags at once where each step was read after those before it; return the questions that are left.

    There the lags are the differences between a step that is asked and one that is read, and no smaller than 0: where
    the correlation of the two is not 0.
    """
    asks = asks.where(np.argsort(asks.stretch, kind="stable"))  # type: ignore[arg-type]  # places do as well
    is_left = np.zeros(len(asks.step), np.bool_)
    borders = np.flatnonzero(np.diff(asks.stretch, prepend=-1, append=-1))
    for low, high in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        steps, times = first_reads.of_part(int(asks.stretch[low]))
        asked = asks.step[low:high]
        last = np.searchsorted(steps, asked, side="right") - 1  # the last step not after it that was ever read
        width = 0 if not len(steps) else int(max(steps[-1], asked.max()) - steps[0]) + 1
        if width > _WIDEST_CORRELATION or (np.diff(times) < 0).any():
            is_left[low:high] = True
            continue
        is_after_all = (last >= 0) & (asks.time[low:high] >= times[np.maximum(last, 0)] if len(times) else False)
        is_left[low:high] = (last >= 0) & ~is_after_all
        if is_after_all.any():
            lags = _differences(asked[is_after_all] - steps[0], steps - steps[0], width)
            is_reachable[lags[lags < len(is_reachable)]] = True
    return asks.where(is_left)


def _differences(high: Integers, low: Integers, width: int) -> Integers:
    """All differences from 0 on between a number of one kind and one of the other, all below a width."""
    size = 1 << (2 * width - 1).bit_length()
    spectra = []
    for numbers in (high, low):
        marks = np.zeros(size)
        marks[numbers] = 1
        spectra.append(np.fft.rfft(marks))
    counts = np.fft.irfft(spectra[0] * spectra[1].conj(), size)[:width]
    return np.flatnonzero(counts > 0.5)  # whole numbers, but for a rounding of 1e-7 at most
