"""Which places a script has picked out of an array, or put in order by what they hold: there a row goes on so.

A mask drops records on purpose, and `argsort` puts them in the order of their times. The places are still those of the
array that was there before, so what was picked is remembered beside them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.functions import axis_and_index, tensors_in
from echo_torch.diagnosis.watching.marks import Marks
from echo_torch.diagnosis.watching.regular import written_out

_MOST_VALUES = 2**21  # whose places are remembered


class Selections:
    """Remembers what was picked, or put in order.

    >>> picked = Selections()
    >>> picked.note(torch.tensor([3, 4, 9, 10]), 0)
    >>> picked.gap(4, 9), picked.gap(3, 10), picked.gap(4, 5)
    (0, 2, None)
    """

    def __init__(self) -> None:
        self._orders: Marks[bool] = Marks()  # indices that were made of what an array holds
        self._picked: deque[tuple[Tensor, int]] = deque()  # places, and the axis along which they were picked
        self._num_values = 0
        self._table: _Table | None = None

    def order(self, indices: Any) -> None:
        """A function has given indices by what an array holds."""
        for tensor in tensors_in([indices]):
            self._orders.set(tensor, True)

    def move(self, given: Sequence[Any], result: Any) -> None:
        """Whatever a function makes of such indices alone is such too."""
        if given and self.is_order(given[0]):
            self.order(result)

    def is_order(self, indices: Any) -> bool:
        """Whether indices say in which order values are."""
        return bool(len(self._orders) and self._orders.of(indices))

    def axis(self, name: str, given: Sequence[Any], named: dict[str, Any]) -> int | None:
        """Along which axis of its result a function picks out of a tensor; None where it does something else."""
        if name == "index_select":
            axis, index = axis_and_index(given, named)
            return axis % given[0].ndim if self._orders.of(index) else None
        if name != "__getitem__":
            return None
        parts = given[1] if isinstance(given[1], tuple) else (given[1],)
        which = [number for number, part in enumerate(parts) if not isinstance(part, (int, slice, type(None)))]
        if len(which) != 1 or not self._picks(parts[which[0]]):
            return None
        return sum(not isinstance(part, int) for part in parts[: which[0]])

    def _picks(self, index: Any) -> bool:
        if isinstance(index, np.ndarray):
            return bool(index.ndim == 1 and index.dtype == np.bool_)
        is_mask = isinstance(index, Tensor) and index.ndim == 1 and index.dtype is torch.bool
        return is_mask or bool(self._orders.of(index))

    def note(self, places: Tensor, axis: int) -> None:
        """These places were picked, in this order along an axis."""
        self._picked.append((places, axis))
        self._num_values += places.numel()
        self._table = None
        while self._num_values > _MOST_VALUES:
            self._num_values -= self._picked.popleft()[0].numel()

    def gap(self, last: int, first: int) -> int | None:
        """Steps between two places in the order in which they were picked; None where they were not."""
        if not self._picked:
            return None
        if self._table is None:
            self._table = _Table([written_out(places).movedim(axis, 0).numpy() for places, axis in self._picked])
        return self._table.gap(last, first)


class _Table:
    """All that was picked, sorted by its places.

    Args:
        picked: Places (steps, ...), each.
    """

    def __init__(self, picked: Sequence[Integers]) -> None:
        places: list[Integers] = []
        ranks: list[Integers] = []
        lines: list[Integers] = []  # each of them from one step to the next
        num_lines = 0
        for each in picked:
            rows = each.reshape(len(each), -1)
            rank, line = np.indices(rows.shape)
            places.append(rows.ravel())
            ranks.append(rank.ravel())
            lines.append(line.ravel() + num_lines)
            num_lines += rows.shape[1]
        whole = np.concatenate(places)
        order: NDArray[np.intp] = np.argsort(whole, kind="stable")
        self._places, self._ranks, self._lines = (
            whole[order], np.concatenate(ranks)[order], np.concatenate(lines)[order],
        )  # fmt: skip

    def gap(self, last: int, first: int) -> int | None:
        """As of `Selections`: 0 if any line leads from one to the other, else that of the latest on which both lie."""
        (before, rank_before), (now, rank_now) = map(self._at, (last, first))
        _, one, other = np.intersect1d(before, now, assume_unique=True, return_indices=True)
        gaps: Integers = rank_now[other] - rank_before[one] - 1
        if not len(gaps):
            return None
        return 0 if (gaps == 0).any() else int(gaps[-1])

    def _at(self, place: int) -> tuple[Integers, Integers]:
        begin, end = np.searchsorted(self._places, [place, place + 1])
        return self._lines[begin:end], self._ranks[begin:end]
