"""Where the rows of a call stand, and how they go on from the call whose state enters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.regular import written_out

_MOST_STEPS = 2**15  # of a call whose grid is kept


class Standing(NamedTuple):
    """Where the rows of a call stand: the places of the first feature of each step.

    Attributes:
        first: Of each lane, the first place.
        last: Of each lane, the last place.
        stride: From one step to the next, where that is the same for all; None: other strides, or one step alone.
        width: From the first feature of a step to behind its last.
        places: int64 (lanes, steps), of each step, where no stride tells them; None where one does.
    """

    first: Sequence[int]
    last: Sequence[int]
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

    @property
    def has_grid(self) -> bool:
        """Whether each row has several steps, but not very many, and none was filled in."""
        if not 1 < self.num_steps <= _MOST_STEPS // len(self.first):
            return False
        return self.places is None or int(self.places.min()) >= ARRAY


class Even(NamedTuple):
    """Where the rows of a call stand whose places are regular: told when somebody asks.

    Attributes:
        found: The places of what is read (rows, steps, features), or (rows, features).
        is_turned: Whether steps come before rows.
    """

    found: Tensor
    is_turned: bool

    @property
    def num_steps(self) -> int:
        """How many steps each row has; 0 where all stand at one place, which tells nothing."""
        if self.found.ndim == 2:
            return 1
        number = self.found.shape[0 if self.is_turned else 1]
        return number if number == 1 or self.found.stride(0 if self.is_turned else 1) else 0

    @property
    def array(self) -> int:
        """The number of the array."""
        return array_of(int(self.found.storage_offset()))

    def steps(self) -> Tensor:
        """As of `Steps`."""
        return written_out(
            (self.found.transpose(0, 1) if self.is_turned else self.found)[..., 0].view(-1, self.num_steps)
        )

    def standing(self) -> Standing:
        """The same as `standing_of`; there the first feature tells as much as any other."""
        found, begin = self.found, int(self.found.storage_offset())
        width = (found.shape[-1] - 1) * found.stride(-1) + 1
        axis = 1 if self.is_turned else 0
        num_rows, row = found.shape[axis], found.stride(axis)
        first = range(begin, begin + row * num_rows, row) if row else [begin] * num_rows
        if self.num_steps == 1:
            return Standing(first, first, None, width)
        step = found.stride(1 - axis)
        move = step * (self.num_steps - 1)
        last = range(begin + move, begin + move + row * num_rows, row) if row else [begin + move] * num_rows
        return Standing(first, last, step, width)


def even_of(layer: nn.Module, read: Any, places: Places) -> Even | None:
    """Where the rows of a call stand, if it reads a tensor whose places are regular."""
    found = places.where(read) if isinstance(read, Tensor) else None
    is_cell = isinstance(layer, nn.RNNCellBase)
    if found is None or not found.is_meta or found.ndim != (2 if is_cell else 3) or not found.numel():
        return None
    return Even(found, not (is_cell or layer.batch_first))


class Uneven(NamedTuple):
    """Where the rows of a call stand of which some end in steps that were filled in: told when somebody asks.

    Attributes:
        steps: The places of what is read.
        places: Where values stand.
    """

    steps: Steps
    places: Places

    @property
    def first(self) -> list[int]:
        """As of `Standing`."""
        return self.steps.first[:, 0].tolist()

    def standing(self) -> Standing | None:
        """As of `standing_of`."""
        return standing_of(self.steps, self.places)


class Steps(NamedTuple):
    """The places of what a layer reads, a row of them for each row of the batch.

    Attributes:
        first: Of each row and step (rows, steps) the place of its first feature; below `ARRAY` where it was filled in,
            or where a packed row has ended.
        width: As of `Standing`.
    """

    first: Tensor
    width: int


def steps_of(layer: nn.Module, read: Any, places: Places) -> Steps | None:
    """The places that a layer reads; None where they are unknown. Packed rows stand in the order of the batch."""
    is_packed = isinstance(read, PackedSequence)
    found = places.where(read.data if is_packed else read)
    if found is None or not found.numel() or found.ndim != (2 if isinstance(layer, nn.RNNCellBase) or is_packed else 3):
        return None
    if is_packed:
        first, last = (_unpacked(written_out(found[:, feature]), read) for feature in (0, -1))
        return Steps(first, int((last - first).max()) + 1)
    is_turned = found.ndim == 3 and not getattr(layer, "batch_first", False)
    found = written_out(found)
    return _in_feature(found.transpose(0, 1) if is_turned else found if found.ndim == 3 else found[:, None], places)


def _in_feature(found: Tensor, places: Places) -> Steps | None:
    """The places of (rows, steps, features); None where all steps of a row stand at the same place.

    A feature that several rows or steps share, as the time of day, does not tell where they stand, nor does one of a
    small array that is read again and again beside a large one; then another one is asked.
    """
    first, width = found[..., 0], 1
    if found.stride(-1):  # else all features stand at one place, as those of an embedding
        arrays = (found[0, 0] // ARRAY).tolist()
        if len(set(arrays)) > 1:
            first = found[..., max(range(len(arrays)), key=lambda feature: places.arrays.size_of(arrays[feature]))]
        if _num_places(first) < first.numel():
            first = max((found[..., feature] for feature in range(found.shape[2])), key=_num_places)
        last = found[..., -1]
        last = torch.where(first // ARRAY == last // ARRAY, torch.maximum(first, last), first)
        width = int((last - first).max()) + 1
    if first.shape[1] > 1 and bool((first == first[:, :1]).all()):
        return None
    return Steps(first, width)


def _num_places(places: Tensor) -> int:
    found = np.sort(places.numpy(), axis=None)  # `np.unique` would import masked arrays: 14 ms
    return 1 + int(np.count_nonzero(found[1:] != found[:-1]))


def _unpacked(values: Tensor, packed: PackedSequence) -> Tensor:
    """(rows, steps) in the order of the batch, which the states have too; -1 behind the end of a row."""
    sizes = packed.batch_sizes.tolist()
    rows = values.new_full((sizes[0], len(sizes)), -1)
    for step, part in enumerate(torch.split(values, sizes)):
        rows[: len(part), step] = part
    return rows if packed.unsorted_indices is None else rows[packed.unsorted_indices.cpu()]


def standing_of(found: Steps, places: Places) -> Standing | None:
    """Where the rows of a call stand; None where a row holds nothing that is known.

    A row begins with the first step that was not filled in, and ends with the last. Somebody who has said where rows
    stand may say that one of them reads nothing.
    """
    steps, width = found.first.numpy(), found.width
    if is_whole := bool(steps.min() >= ARRAY):
        first, last = steps[:, 0], steps[:, -1]
    else:
        first, last = _ends(steps)
        if first.min() < ARRAY and not places.arrays.is_named(array_of(int(first.max()))):
            return None
    moves = steps[:, 1:] - steps[:, :-1]
    if not is_whole:
        moves = moves[(steps[:, 1:] >= ARRAY) & (steps[:, :-1] >= ARRAY)]
    stride = int(moves.flat[0]) if moves.size else None
    stride = None if stride is None or (moves != stride).any() else stride
    is_told = is_whole and (stride or steps.shape[1] == 1)
    return Standing(first.tolist(), last.tolist(), stride, width, None if is_told else found.first.contiguous())


def standing_later(found: Steps, places: Places) -> Standing | Uneven | None:
    """The same, told when somebody asks if rows end in steps that were filled in."""
    steps = found.first.numpy()
    is_uneven = bool(steps[:, 0].min() >= ARRAY > steps.min())
    return Uneven(found, places) if is_uneven else standing_of(found, places)


def _ends(steps: Integers) -> tuple[Integers, Integers]:
    is_real = steps >= ARRAY
    begin, end = is_real.argmax(1), steps.shape[1] - 1 - is_real[:, ::-1].argmax(1)
    rows = np.arange(len(steps))
    return steps[rows, begin], steps[rows, end]


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
    distance, axes = first - last, places.arrays.axes_of(array_of(last))
    stride = stride or stride_between(last, first, width, places)
    steps = _steps_in_chunks(last, first, stride, axes)
    if steps is None and distance % stride == 0:
        steps = distance // stride
    return None if steps is None else steps - 1


def stride_between(last: int, first: int, width: int, places: Places) -> int:
    """From one step to the next, where only two places of an array tell: along its widest axis that leads there."""
    distance = first - last
    wide = [each for _, each in places.arrays.axes_of(array_of(last)) if distance and distance % each == 0]
    return max([*wide, width if distance % width == 0 else 1])


def _steps_in_chunks(last: int, first: int, stride: int, axes: list[tuple[int, int]]) -> int | None:
    """Steps between two places of an array whose axes are chunks, rows and steps: a row goes on in the next chunk.

    Returns:
        None unless both differ along one axis outside of that of the steps, and along no other.
    """
    size_of_time = {width: size for size, width in axes if size > 1}.get(stride)
    moves = {width: first % ARRAY // width % size - last % ARRAY // width % size for size, width in axes if size > 1}
    others = [width for width, move in moves.items() if move and width != stride]
    if size_of_time is None or len(others) != 1 or others[0] < stride:
        return None
    return moves[others[0]] * size_of_time + moves[stride]
