"""Which tensors are tables of vectors that symbols are looked up in, as `torch.eye(10)[symbols]`, and are no data.

A row of a table stands for a symbol, not for a step: what is read stands where the symbols stand. Data are picked by
indices too, as windows or in another order. Those go forward in time, or take no row twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import ARRAY, Arrays
from echo_torch.diagnosis.watching.functions import axis_and_index
from echo_torch.diagnosis.watching.regular import first_of

_INTEGERS = {torch.int16, torch.int32, torch.int64}


class Tables:
    """Remembers the tables.

    Args:
        arrays: Knows how large arrays are.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._numbers: set[int] = set()  # of the arrays that are tables

    def is_one(self, places: Tensor, symbols: Tensor, places_of_symbols: Tensor | None) -> bool:
        """Whether indices into a tensor are symbols.

        Args:
            places: Those of the tensor that is looked into.
            symbols: The indices.
            places_of_symbols: Where these stand; None: nobody knows.
        """
        array = _array_of(places)
        if array not in self._numbers and self._are_symbols(symbols, places_of_symbols, len(places)):
            self._numbers.add(array)
        return array in self._numbers

    def _are_symbols(self, indices: Tensor, places: Tensor | None, num_rows: int) -> bool:
        values = indices.numpy(force=True)
        if _go_one_way(values):
            return False
        size = values.size if places is None else max(values.size, self._arrays.size_of(_array_of(places)))
        # A batch of samples that are drawn may hold one twice.
        return size > num_rows or (values.ndim > 1 and _holds_twice(values))


def symbols_in(name: str, given: Sequence[Any], named: dict[str, Any]) -> Tensor | None:
    """The indices by which a function picks rows, each by itself; None where it does something else."""
    if not given or not isinstance(given[0], Tensor) or not 0 < given[0].ndim <= 2:
        return None
    index: Any = None
    if name == "__getitem__":
        index = given[1][0] if isinstance(given[1], tuple) and len(given[1]) == 1 else given[1]
    elif name == "index_select":
        axis, index = axis_and_index(given, named)
        index = index if axis in (0, -given[0].ndim) else None
    is_index = isinstance(index, Tensor) and index.dtype in _INTEGERS
    return index if is_index else None


def _array_of(places: Tensor) -> int:
    return first_of(places) // ARRAY


def _go_one_way(values: Integers) -> bool:
    """Whether the values grow along one of their axes, as those of windows do, or all fall."""
    moves = [np.diff(values, axis=axis) for axis in range(values.ndim) if values.shape[axis] > 1]
    return any(bool((move > 0).all() or (move < 0).all()) for move in moves)


def _holds_twice(values: Integers) -> bool:
    found = np.sort(values, axis=None)
    return bool((found[1:] == found[:-1]).any())
