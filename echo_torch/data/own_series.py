"""A user's own series of floats, of one or many features and of unequal length, as a source of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from torch import Tensor

from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError, shorten

_NUMBERS = "iuf"  # kinds of dtype that are read: signed and unsigned integers, floats


class OwnSeries:
    """The source a stream reads from: places in, readings of a user's own series out.

    Sequence k is series k. Where there is no place, before a series, beyond its end or in a sequence that is not
    there, stands NaN. NaN in the data is a missing reading: its time passes, and the stream reads zeros for it.

        step          0    1    2    3
        series 0    0.5  0.7  0.9  1.0
        series 1    2.5  2.0  nan  nan        it has two steps

        >>> series = OwnSeries([[0.5, 0.7, 0.9, 1.0], [2.5, 2.0]])
        >>> series.lengths.tolist(), series.num_features
        ([4, 2], None)
        >>> series(np.array([0, 0, 1, 1]), np.array([0, 3, 1, 2])).tolist()
        [0.5, 1.0, 2.0, nan]

    Args:
        series: Arrays or tensors, each (steps,) or (steps, features) with at least one step; all of one rank and
            with as many features. A single series of this dtype is read where it lies, anything else is copied once.
        dtype: What is returned: float32, float64 or float16. Integers become floats too.

    Attributes:
        lengths: int64 (series,), steps of each series.
        num_features: Features of each step; None for series of numbers.

    Raises:
        RuleError: If there is no series, one is empty, has another rank or other features, or holds something else
            than numbers, or an infinite one.
    """

    def __init__(self, series: Sequence[ArrayLike | Tensor], *, dtype: DTypeLike = np.float32) -> None:
        kind = np.dtype(dtype)
        if kind not in (np.float16, np.float32, np.float64):
            raise RuleError("dtype", "$dtype must be one of float16, float32, float64", kind)
        if hasattr(series, "__array__"):
            raise RuleError(
                "series",
                "$series must be a list of arrays, one for each series",
                f"a single array of shape {tuple(np.shape(series))}",
                reason="because series may have unequal lengths",
                way_out="write [array] for one series, list(array) where each row is a series",
            )
        arrays = [_checked_array(number, one) for number, one in enumerate(series)]
        _check_together(arrays)
        self.lengths: Integers = np.array([len(one) for one in arrays], dtype=np.int64)
        self.num_features: int | None = arrays[0].shape[1] if arrays[0].ndim == 2 else None
        self._begins: Integers = np.cumsum(self.lengths) - self.lengths
        self._values = _joined(arrays, kind)
        self._check_finite()

    def exists(self, sequence: Integers, step: Integers) -> NDArray[np.bool_]:
        """Whether there are such places: bool of the broadcast shape. A missing reading is a place too."""
        return self._find(sequence, step)[0]

    def __call__(self, sequence: Integers, step: Integers) -> NDArray[Any]:
        """Readings of the given places.

        Args:
            sequence: int64, broadcasts with `step`.
            step: int64.

        Returns:
            Floats of the broadcast shape, with features (..., features); NaN where there is no such place.
        """
        exists, row = self._find(sequence, step)
        found = np.asarray(np.take(self._values, np.where(exists, row, 0), axis=0))
        found[~exists] = np.nan
        return found

    def _find(self, sequence: Integers, step: Integers) -> tuple[NDArray[np.bool_], Integers]:
        number = np.clip(sequence, 0, len(self.lengths) - 1)
        exists = (number == sequence) & (step >= 0) & (step < self.lengths[number])
        return exists, self._begins[number] + step

    def _check_finite(self) -> None:
        if (is_infinite := np.isinf(self._values)).any():
            row = int(is_infinite.argmax()) // (self.num_features or 1)
            number = int(np.searchsorted(self._begins, row, side="right")) - 1
            raise RuleError(
                "series",
                f"$series must hold numbers that are finite as {self._values.dtype}",
                f"an infinite one in series {number} at step {row - self._begins[number]}",
                way_out="give NaN where a reading is missing",
            )


def _checked_array(number: int, one: ArrayLike | Tensor) -> NDArray[Any]:
    if isinstance(one, Tensor):
        one = one.detach().cpu()
        one = one.float() if one.dtype == torch.bfloat16 else one  # numpy has no such type
    try:
        array = np.asarray(one)
    except ValueError as error:  # rows of unequal length
        raise RuleError("series", f"$series must hold arrays, also as series {number}", error) from None
    if array.dtype.kind not in _NUMBERS:
        got = f"dtype {array.dtype}" if isinstance(one, np.ndarray | Tensor) else f"{shorten(one)}, {array.dtype}"
        raise RuleError("series", f"$series must hold integers or floats, also as series {number}", got)
    if array.ndim not in (1, 2) or not array.size:
        raise RuleError(
            "series",
            "Each of $series must have the shape (steps,) or (steps, features), with at least one step",
            f"shape {array.shape} as series {number}",
        )
    return array


def _check_together(arrays: list[NDArray[Any]]) -> None:
    if not arrays:
        raise RuleError("series", "$series must hold at least one series", "none")
    for number, one in enumerate(arrays):
        if one.shape[1:] != arrays[0].shape[1:]:
            raise RuleError(
                "series",
                "$series must all be (steps,), or all (steps, features) with as many features",
                f"shape {arrays[0].shape} as series 0 and {one.shape} as series {number}",
                reason="because one network reads them all",
            )


def _joined(arrays: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what becomes infinite is refused afterwards, with its place
        if len(arrays) == 1:
            return np.asarray(arrays[0], dtype=dtype)
        return np.concatenate(arrays, dtype=dtype, casting="unsafe")
