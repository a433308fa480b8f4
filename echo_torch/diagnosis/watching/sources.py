"""Where the state of a call comes from, as arrays: most states go on whole, and rows are many."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.lanes import OfOneCall, Origin
from echo_torch.diagnosis.watching.recorded import Call

_MOST_NUMBERS = 64  # of rows, whose counts are kept


class Source(NamedTuple):
    """Rows of a call whose state one earlier call has left.

    Attributes:
        call: The number of the earlier call.
        lanes: int64 (rows,), which rows.
        left: int64 (rows,), which row of the earlier call each of them was.
    """

    call: int
    lanes: Integers
    left: Integers


def sources_of(call: Call) -> list[Source]:
    """All rows of a call of which it is known where their state comes from, by the calls that have left it."""
    number, origins = min(call.num_rows, call.entering.num_lanes), call.entering.origins
    if origins and isinstance(origins[0], OfOneCall) and origins[0].is_whole and len(origins[0]) >= number > 0:
        rows = _counted(number)
        return [Source(origins[0].call, rows, rows)]
    found: dict[int, list[tuple[int, int]]] = {}
    for lane, origin in origins_of(call):
        found.setdefault(origin.call, []).append((lane, origin.lane))
    return [Source(left, *np.array(rows).T) for left, rows in found.items()]


def origins_of(call: Call) -> Iterator[tuple[int, Origin]]:
    """Each lane of which it is known where its state comes from."""
    for lane in range(min(call.num_rows, call.entering.num_lanes)):
        for lanes in call.entering.origins:
            origin = lanes[lane] if lane < len(lanes) else None
            if origin is not None:
                yield lane, origin
                break


def as_array(places: Sequence[int]) -> Integers:
    """Places one by one, int64 (rows,)."""
    if isinstance(places, range):
        return np.arange(places.start, places.stop, places.step)
    return np.array(places, np.int64)


def arrays_in(places: Integers) -> set[int]:
    """The numbers of the arrays in which places are."""
    if not places.size:
        return set()
    first, last = int(places.min()) // ARRAY, int(places.max()) // ARRAY
    return {first} if first == last else set((places // ARRAY).ravel().tolist())


@functools.lru_cache(_MOST_NUMBERS)
def _counted(number: int) -> Integers:
    return np.arange(number)
