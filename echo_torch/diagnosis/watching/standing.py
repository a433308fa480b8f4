"""Where the rows of a call stand, and how they go on from the call whose state enters."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from echo_torch.diagnosis.watching.places import ARRAY, Places

_MOST_STEPS = 2**15  # of a call whose grid is kept


class Standing(NamedTuple):
    """Where the rows of a call stand: the places of the first feature of each step.

    Attributes:
        first: Of each lane, the first place.
        last: Of each lane, the last place.
        stride: From one step to the next, where that is the same for all; None: other strides, or one step alone.
        width: From the first feature of a step to behind its last.
        grid: (lanes, steps), the place of each step; None of a cell, or of very many.
    """

    first: list[int]
    last: list[int]
    stride: int | None
    width: int
    grid: Tensor | None = None


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
    stride = strides.pop() if len(strides) == 1 else None
    grid = steps.clone() if steps.shape[1] > 1 and steps.numel() <= _MOST_STEPS else None
    return Standing(steps[:, 0].tolist(), steps[:, -1].tolist(), stride, width, grid)


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
