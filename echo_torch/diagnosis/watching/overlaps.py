"""Arrays whose samples are windows of one series that overlap: the values themselves tell, whoever has cut them.

Where a sample holds from some step on what the next one begins with, to the bit and nearly everywhere, both are parts
of one series. Two values that stand in one place of it stand in several places of the array.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.regular import regular

MOST_COMPARED = 2**24  # values of an array that is looked at
_NEARLY_ALL = 0.9  # of neighbours: windows of several series may lie one behind the other
_MOSTLY = 0.75  # of a few of them
_LOOKED_AT = 16  # neighbours that tell which strides may be meant
_MOST_STRIDES = 16  # that are looked at in full
_MOST_SPREADS = 64  # that are kept: the samples that a dataset makes are mostly of one size
_LEAST_BITS = 32  # of evidence: so small are the odds of windows that meet by chance
_FEWEST = 3  # samples, of which the first and the third are no neighbours


class Overlap(NamedTuple):
    """Samples that are windows of a series.

    Attributes:
        starts: Of each sample the step of the series at which it begins, int64.
        stride: From one window to the next, where it is the same everywhere; None where the windows are of several
            series.
        num_steps: Of a sample.
        trailing: The sizes of what each step holds.
    """

    starts: Integers
    stride: int | None
    num_steps: int
    trailing: tuple[int, ...]

    @property
    def width(self) -> int:
        """Values of a step."""
        return math.prod(self.trailing)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the series."""
        return int(self.starts[-1]) + self.num_steps, *self.trailing

    def positions(self, positions: Integers) -> Integers:
        """Where values stand in the series that stand there in the array.

        >>> Overlap(np.array([0, 2, 4]), 2, 3, ()).positions(np.arange(9)).tolist()
        [0, 1, 2, 2, 3, 4, 4, 5, 6]
        """
        sample, inside = np.divmod(positions, self.num_steps * self.width)
        return self.starts[sample] * self.width + inside

    def regular(self, shape: Sequence[int], strides: Sequence[int], first: int, array: int) -> Tensor | None:
        """The same of a tensor in even strides, as places without memory; None where they are in none.

        Args:
            shape: Of the tensor.
            strides: Its own.
            first: Where it begins in the array.
            array: The place at which the array begins.
        """
        size = self.num_steps * self.width
        sample, inside = divmod(first, size)
        are_samples = [stride % size == 0 for stride in strides]
        is_along = zip(shape, strides, are_samples, strict=True)
        extent = sum((length - 1) * stride for length, stride, is_sample in is_along if not is_sample)
        if self.stride is None or inside + extent >= size:
            return None
        of_series = [
            stride // size * self.stride * self.width if is_sample else stride
            for stride, is_sample in zip(strides, are_samples, strict=True)
        ]
        return regular(shape, of_series, array + int(self.starts[sample]) * self.width + inside)


def overlap_in(whole: Tensor | NDArray[Any]) -> Overlap | None:
    """How the samples of an array (samples, steps, ...) overlap; None where they do not, or that cannot be told.

    >>> series = np.random.default_rng(1).normal(size=99)
    >>> overlap_in(np.array([series[begin : begin + 8] for begin in range(0, 90, 3)])).stride
    3
    >>> overlap_in(series.reshape(11, 9)), overlap_in(np.ones((50, 8)))
    (None, None)
    """
    shape = tuple(whole.shape)
    if len(shape) < 2 or shape[0] < _FEWEST or shape[1] < 2 or not 0 < math.prod(shape) <= MOST_COMPARED:
        return None
    bits = _bits_of(whole)
    if bits is None:
        return None
    samples = bits.reshape(*shape[:2], -1)
    found: list[tuple[int, NDArray[np.bool_]]] = []
    for stride in _strides_of(samples)[:_MOST_STRIDES]:
        meets = _meets(samples, stride, 1)
        if meets.mean() >= _NEARLY_ALL:
            found.append((stride, meets))
        if len(found) > 1:  # as of what is constant, or periodic
            return None
    if not found or not _is_told(samples, found[0][0]):
        return None
    stride, meets = found[0]
    starts = np.concatenate([[0], np.cumsum(np.where(meets, stride, shape[1]))])
    return Overlap(starts, stride if meets.all() else None, shape[1], shape[2:])


def _bits_of(whole: Tensor | NDArray[Any]) -> NDArray[Any] | None:
    """The bits of each value as a number: what is no number is equal to itself then."""
    if isinstance(whole, Tensor):
        whole = whole.detach().cpu()
        whole = (whole.view(torch.int16) if whole.dtype is torch.bfloat16 else whole).numpy()
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}.get(whole.itemsize)
    return None if kind is None or whole.dtype.hasobject else whole.view(kind)


def _strides_of(samples: NDArray[Any]) -> list[int]:
    """The strides with which most of a few samples begin as the sample before goes on."""
    which = _spread(len(samples) - 1)
    is_next = (samples[which, 1:] == samples[which + 1, :1]).all(-1)
    return [int(each) + 1 for each in np.flatnonzero(is_next.sum(0) >= _MOSTLY * len(which))]


@functools.lru_cache(_MOST_SPREADS)
def _spread(number: int) -> Integers:
    """A few of so many, evenly spread."""
    spread = np.linspace(0, number - 1, _LOOKED_AT).astype(int).tolist()
    return np.array(sorted(set(spread)))  # `np.unique` would import masked arrays: 14 ms


def _meets(samples: NDArray[Any], stride: int, apart: int) -> NDArray[np.bool_]:
    """Whether each sample holds from a step on what another one begins with, so many samples on."""
    is_same: NDArray[np.bool_] = (samples[:-apart, stride:] == samples[apart:, :-stride]).all((1, 2))
    return is_same


def _is_told(samples: NDArray[Any], stride: int) -> bool:
    """Whether samples would not meet so by chance, as all do that begin and end alike: the next but one tells."""
    number = len(samples) - 1
    odds = max(float(_meets(samples, stride, 2).mean()), 1 / number)
    return -number * math.log2(odds) >= _LEAST_BITS
