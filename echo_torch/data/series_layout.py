"""Whole series of unequal length, one after another, on a number of lanes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from echo_torch.data.framing import NO_STEP, answer_steps
from echo_torch.data.layout import UNUSED_ROW, Places, check_carry_and_cut
from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError, shorten


class SeriesLayout:
    """Lanes that read whole series, one after another: chunk after chunk without a gap, reset where a series begins.

    The next series goes to the lane that is free first, of several to the lowest. One that ends inside a chunk is
    followed by empty columns, and the lane's next chunk starts afresh. In a pass each series is read once; a lane
    for which nothing is left has unused rows until the next pass, which is like the first. Passes never end.

        lengths 5, 2, 3; num_lanes=2, chunk_length=2    chunk 0   chunk 1   chunk 2     chunk 3
        lane 0 reads of series                              0         0         0           0
               steps                                      0 1       2 3       4 -         0 1
        lane 1 reads of series                              1         2         2           1
               steps                                      0 1       0 1       2 -         0 1

        >>> layout = SeriesLayout([5, 2, 3], num_lanes=2, chunk_length=2)
        >>> layout.chunks_per_pass
        3
        >>> layout.places(np.array([2])).step.tolist()
        [[[4, -1], [2, -1]]]

    The fewest rows are unused where the longest series come first. It keeps four numbers for each series, and finds
    any chunk by bisection.

    Args:
        lengths: Steps of each series, each at least 1, such as `OwnSeries.lengths`.
        num_lanes: Rows of every chunk, at least 1.
        chunk_length: Steps per chunk, at least 1.
        lag: How many steps back the answer lies, at least 0; it is not asked where it would lie before the series.
            None: nothing is asked, unless the stream has `targets`.
        carry: "keep" resets the state where a series begins, "reset" at every chunk.

    Raises:
        RuleError: If there is no series, a number is out of range or a word is unknown.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Integers,
        num_lanes: int,
        chunk_length: int,
        *,
        lag: int | None = None,
        carry: str = "keep",
    ) -> None:
        check_carry_and_cut(carry, "chunk")
        for name, number in (("num_lanes", num_lanes), ("chunk_length", chunk_length)):
            if number < 1:
                raise RuleError(name, f"${name} must be at least 1: a chunk holds something", number)
        if lag is not None and lag < 0:
            raise RuleError("lag", "$lag must be at least 0, or None: an echo cannot come before its symbol", lag)
        self._lengths = _checked_lengths(lengths)
        self._num_lanes, self._chunk_length, self._lag = num_lanes, chunk_length, lag
        self._resets_every_chunk = carry == "reset"
        num_chunks = -(-self._lengths // chunk_length)
        self._lanes, self._begins = _schedule(num_chunks, num_lanes)
        self._chunks_per_pass = int((self._begins + num_chunks).max())
        # Of each lane the series in the order in which it reads them, lane after lane: found by one bisection.
        self._order = np.lexsort((self._begins, self._lanes))
        self._keys = (self._lanes * self._chunks_per_pass + self._begins)[self._order]

    @property
    def chunks_per_pass(self) -> int:
        """Chunks, and so updates, in which each series is read once."""
        return self._chunks_per_pass

    @property
    def num_lanes(self) -> int:
        """Rows of every chunk."""
        return self._num_lanes

    @property
    def num_steps(self) -> int:
        """Columns of every chunk."""
        return self._chunk_length

    def places(self, index: Integers) -> Places:
        """What the chunks of the given numbers, int64 (n,), read. The sequence is the number of the series."""
        chunk = (index % self._chunks_per_pass)[:, None]
        lane = np.arange(self._num_lanes)
        # A lane without any series finds another's last one, or with -1 the last of all: neither is its own.
        series = self._order[np.searchsorted(self._keys, lane * self._chunks_per_pass + chunk, side="right") - 1]
        first = (chunk - self._begins[series]) * self._chunk_length
        is_used = (self._lanes[series] == lane) & (first < self._lengths[series])
        step = first[:, :, None] + np.arange(self._chunk_length)
        step = np.where(is_used[:, :, None] & (step < self._lengths[series][:, :, None]), step, NO_STEP)
        return Places(
            sequence=np.where(is_used, series, UNUSED_ROW),
            step=step,
            answer=np.full_like(step, NO_STEP) if self._lag is None else answer_steps(step, self._lag),
            starts=~is_used | (first == 0) | self._resets_every_chunk,
        )

    def drawn(self, num_chunks: int) -> tuple[int, int]:
        """How many series the first `num_chunks` chunks begin, and how many steps they read, over all passes."""
        num_passes, rest = divmod(num_chunks, self._chunks_per_pass)
        num_read = np.clip((rest - self._begins) * self._chunk_length, 0, self._lengths)
        num_begun = num_passes * len(self._lengths) + int(np.count_nonzero(num_read))
        return num_begun, num_passes * int(self._lengths.sum()) + int(num_read.sum())


def _checked_lengths(lengths: ArrayLike) -> Integers:
    values = np.asarray(lengths)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iu" or (values < 1).any():
        raise RuleError(
            "lengths",
            "$lengths must hold for each series its number of steps, a whole number of at least 1",
            shorten(values.tolist()),
        )
    return values.astype(np.int64)


def _schedule(num_chunks: Integers, num_lanes: int) -> tuple[Integers, Integers]:
    """The lane of each series, and the chunk of a pass in which it begins: int64 (series,) each."""
    free = [(0, lane) for lane in range(min(num_lanes, len(num_chunks)))]  # sorted, and so a heap
    places = []
    for number in num_chunks.tolist():
        begin, lane = free[0]
        places.append((lane, begin))
        heapq.heapreplace(free, (begin + number, lane))
    lanes, begins = np.array(places, dtype=np.int64).T
    return lanes, begins
