"""When each step was first read, and which lags the questions could have reached."""

from __future__ import annotations

import numpy as np

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.data_path.columns import Booleans, Columns

_MANY_LOOKUPS = 2**26  # seconds of them
_WIDEST_CORRELATION = 2**24
_COST_OF_A_LAG = 400  # in lookups


class FirstReads:
    """When each step was first read, within whatever is numbered by `part`.

    Args:
        part: (reads,).
        step: (reads,), at least 0.
        time: (reads,), rising for each part.
        spans: Part, first and last step of what had been read before, each (spans,).
    """

    NEVER = np.iinfo(np.int64).max
    BEFORE = -1

    def __init__(
        self, part: Integers, step: Integers, time: Integers, spans: tuple[Integers, Integers, Integers] | None = None
    ) -> None:
        nothing = np.zeros(0, np.int64)
        span_part, low, high = (nothing, nothing, nothing) if spans is None else spans
        # Wider than the last step, so that the last step of a part and the first of the next are not neighbours.
        self._width = int(max(step.max(initial=0), high.max(initial=0))) + 2
        key = part * self._width + step
        order = np.argsort(key, kind="stable")  # of equal ones the first comes first, as it was read
        key = key[order]
        is_first = np.append(True, key[1:] != key[:-1])[: len(key)]
        self._keys, self._times = key[is_first], time[order][is_first]
        self._low, self._high = _joined(span_part * self._width + low, span_part * self._width + high)

    def time_of(self, part: Integers, step: Integers) -> Integers:
        """The time of the first read; `NEVER` where there was none, `BEFORE` where there was one before."""
        is_place = (step >= 0) & (step < self._width - 1)
        key = np.where(is_place, part * self._width + step, -1)
        time = np.full(len(step), self.NEVER)
        if len(self._keys):
            place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            time = np.where(self._keys[place] == key, self._times[place], self.NEVER)
        if len(self._low):
            span = np.searchsorted(self._low, key, side="right") - 1
            is_before = (span >= 0) & (key <= self._high[span])
            time = np.where(is_before, self.BEFORE, time)
        return time

    def of_part(self, part: int) -> tuple[Integers, Integers]:
        """The steps that were read in a part, rising, and when each was first."""
        begin, end = part * self._width, (part + 1) * self._width
        low, high = np.searchsorted(self._keys, [begin, end])
        keys, times = self._keys[low:high], self._times[low:high]
        first, last = np.searchsorted(self._low, [begin, end])
        if first == last:
            return keys - begin, times
        before = _spread(self._low[first:last], self._high[first:last])
        is_new = ~np.isin(keys, before)
        steps = np.append(before, keys[is_new]) - begin
        order = np.argsort(steps)
        return steps[order], np.append(np.full(len(before), self.BEFORE), times[is_new])[order]

    def count(self, part: Integers, asks: Columns) -> int:
        """How many of the questions had all their answers read."""
        is_read = np.ones(len(asks.step), np.bool_)
        for answer in asks.answers.T:
            is_read &= self.time_of(part, answer) <= asks.time
        return int(is_read.sum())

    def spans(self) -> tuple[Integers, Integers, Integers]:
        """All that was read: part, first and last step of each span."""
        is_first = np.append(True, np.diff(self._keys) != 1)[: len(self._keys)]
        is_last = np.append(np.diff(self._keys) != 1, True)[: len(self._keys)]
        low, high = _joined(
            np.append(self._low, self._keys[is_first]),
            np.append(self._high, self._keys[is_last]),
        )
        return low // self._width, low % self._width, high % self._width


def _spread(low: Integers, high: Integers) -> Integers:
    """All numbers of some spans."""
    lengths = high - low + 1
    begins = np.cumsum(lengths) - lengths
    steps: Integers = np.arange(lengths.sum()) + np.repeat(low - begins, lengths)
    return steps


def _joined(low: Integers, high: Integers) -> tuple[Integers, Integers]:
    """Spans in their order, those that touch as one."""
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    is_first = np.append(True, low[1:] > high[:-1] + 1)[: len(low)]
    is_last = np.append(is_first[1:], True)[: len(low)]
    return low[is_first], high[is_last]


def mark_reachable(is_reachable: Booleans, first_reads: FirstReads, asks: Columns) -> None:
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


def _mark_by_correlation(is_reachable: Booleans, first_reads: FirstReads, asks: Columns) -> Columns:
    """Mark all lags at once where each step was read after those before it; return the questions that are left.

    There the lags are the differences between a step that is asked and one that is read, and no smaller than 0: where
    the correlation of the two is not 0.
    """
    order = np.argsort(asks.stretch, kind="stable")
    asks = Columns._make(field[order] for field in asks)
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
