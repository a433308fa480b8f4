"""Where the rows of a call stand, and how they go on from the call whose state enters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.places import ARRAY, Places


class Standing(NamedTuple):
    """Where the rows of a call stand: the places of the first feature of each step.

    Attributes:
        first: Of each lane, the first place.
        last: Of each lane, the last place.
        stride: From one step to the next, where that is the same for all; None: other strides, or one step alone.
        width: From the first feature of a step to behind its last.
        places: int64 (lanes, steps), of each step, where no stride tells them; None where one does.
    """

    first: list[int]
    last: list[int]
    stride: int | None
    width: int
    places: Tensor | None = None

    def of_all_steps(self) -> Integers:
        """The place of each step, int64 (lanes, steps)."""
        if self.places is not None:
            return self.places.numpy()
        return np.array(self.first)[:, None] + (self.stride or 0) * np.arange(self.num_steps)

    @property
    def num_steps(self) -> int:
        """How many steps each row has."""
        if self.places is not None:
            return self.places.shape[1]
        return (self.last[0] - self.first[0]) // self.stride + 1 if self.stride else 1


def standing_of(layer: nn.Module, read: Tensor, places: Places) -> Standing | None:
    """Where the rows of a layer's input stand; None where that is unknown."""
    found = places.of(read)
    if found is None or not found.numel() or found.ndim != (2 if isinstance(layer, nn.RNNCellBase) else 3):
        return None
    if found.ndim == 2:
        found = found[:, None]
    elif not getattr(layer, "batch_first", False):
        found = found.transpose(0, 1)
    steps = found[..., 0]
    strides = set((steps[:, 1:] - steps[:, :-1]).flatten().tolist())
    width = int((found[..., -1] - steps).max()) + 1
    if (is_padding := steps < ARRAY).any() and places.is_named(array_of(int(steps.max()))):
        first, last = _ends(steps, is_padding)
        return Standing(first.tolist(), last.tolist(), None, width, steps.contiguous())
    stride = strides.pop() if len(strides) == 1 else None
    is_told = stride or steps.shape[1] == 1
    return Standing(steps[:, 0].tolist(), steps[:, -1].tolist(), stride, width, None if is_told else steps.contiguous())


def _ends(steps: Tensor, is_padding: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last place of each lane that is no padding."""
    order = torch.arange(1, steps.shape[1] + 1)
    last = (order * ~is_padding).argmax(1, keepdim=True)
    first = (order.flip(0) * ~is_padding).argmax(1, keepdim=True)
    return steps.gather(1, first)[:, 0], steps.gather(1, last)[:, 0]


def array_of(place: int) -> int:
    """The number of the array in which a place is."""
    return place // ARRAY


def gap_between(last: int, first: int, stride: int | None, width: int, places: Places) -> int | None:
    """Steps between two places of one array; None where it cannot be said in steps.

    Args:
        last: The last place that was read.
        first: The place that is read next.
        stride: From one step to the next, as far as it is known; if not, a step is taken along the widest axis of the
            array on which both lie: many rows stand side by side there.
        width: As of `Standing`.
        places: Knows the array.
    """
    distance, axes = first - last, places.axes_of(array_of(last))
    if not stride:
        wide = [each for _, each in axes if distance and distance % each == 0]
        stride = max([*wide, width if distance % width == 0 else 1])
    steps = _steps_in_chunks(last, first, stride, axes)
    if steps is None and distance % stride == 0:
        steps = distance // stride
    return None if steps is None else steps - 1


def _steps_in_chunks(last: int, first: int, stride: int, axes: list[tuple[int, int]]) -> int | None:
    """Steps between two places of an array whose axes are chunks, rows and steps: a row goes on in the next chunk.

    Returns:
        None unless both differ along one axis outside of that of the steps, and along no other.
    """
    size_of_time = {width: size for size, width in axes if size > 1}.get(stride)
    moves = {width: first % ARRAY // width % size - last % ARRAY // width % size for size, width in axes}
    others = [width for width, move in moves.items() if move and width != stride]
    if size_of_time is None or len(others) != 1 or others[0] < stride:
        return None
    return moves[others[0]] * size_of_time + moves[stride]
