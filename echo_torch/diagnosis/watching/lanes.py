"""Lanes of states known again by their bytes: which call left what enters now?"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MOST_CALLS = 256  # whose lanes are remembered
_ZEROS = b"\x00\x80"  # the bytes of zeros; a negative zero is one
_ZERO, _NEGATIVE_ZERO = _ZEROS


class Origin(NamedTuple):
    """Where a lane of a state comes from.

    Attributes:
        call: The number of the call that left it.
        field: Which of its tensors: 0 the hidden state, 1 the cells.
        lane: Which row.
    """

    call: int
    field: int
    lane: int


class Rows:
    """The bytes of a state's tensor, lane by lane, as it is now.

    Args:
        field: (layers, lanes, features), or (lanes, features), or without lanes.
        axis: Which axis counts the lanes.

    Attributes:
        whole: The bytes of all lanes, one lane after another.
        number: How many lanes there are.
    """

    __slots__ = ("_axis", "_device", "_dtype", "_empty", "_memory", "_shape", "number", "whole")

    def __init__(self, field: Tensor, axis: int) -> None:
        self._dtype, self._device, self._shape = field.dtype, field.device, field.shape
        self._axis = axis if axis < len(self._shape) else 0
        values = field.detach()
        if field.is_cpu and self._dtype is not torch.bfloat16:
            rows = values.numpy()
            self._memory: tuple[int, Sequence[int], NDArray[Any]] | None = field.data_ptr(), field.stride(), rows
        else:
            values = values.cpu()
            values = values.view(torch.int16) if self._dtype is torch.bfloat16 else values  # numpy has no such floats
            self._memory, rows = None, values.numpy()
        self.whole = (rows.swapaxes(0, self._axis) if self._axis else rows).tobytes()
        self.number = (self._shape[self._axis] if self._shape else 1) if self.whole else 0
        self._empty: list[int] | None = None

    def let_go(self) -> None:
        """Hold the memory of the tensor no longer, only its bytes."""
        self._memory = None

    def is_still(self, field: Tensor) -> bool:
        """Whether a tensor lies in the same memory, and that holds what it held."""
        if self._memory is None or field.data_ptr() != self._memory[0]:
            return False
        _, strides, rows = self._memory
        if field.shape != self._shape or field.stride() != strides or field.dtype is not self._dtype:
            return False
        return (rows.swapaxes(0, self._axis) if self._axis else rows).tobytes() == self.whole

    @property
    def numel(self) -> int:
        """Values of all lanes."""
        return self._shape.numel()

    @property
    def _width(self) -> int:
        return len(self.whole) // max(1, self.number)

    @property
    def empty(self) -> list[int]:
        """The lanes that hold zeros alone."""
        if self._empty is None:
            ends = self.whole[self._width - 1 :: self._width] if self.whole else b""
            is_any = _ZERO in ends or _NEGATIVE_ZERO in ends  # the last byte of each lane mostly tells
            self._empty = [lane for lane, row in enumerate(self) if is_empty(row)] if is_any else []
        return self._empty

    def __iter__(self) -> Iterator[bytes]:
        width = self._width
        return (self.whole[start : start + width] for start in range(0, width * self.number, width or 1))

    def is_same(self, other: Rows) -> bool:
        """Whether all lanes of another hold the same."""
        if self.whole != other.whole or self.number != other.number:
            return False
        other._empty = self.empty
        return True

    def is_viewed_as(self, other: Rows) -> bool:
        """Whether another holds the same values in the same order in memory, as many rows of more features each.

        So a view makes one layer of several, or of two directions: each row then has features of other rows.
        """
        shape, like = self._shape, other._shape
        if len(shape) != 3 or shape[0] < 2 or other.number != self.number or shape == like:
            return False
        if len(self.whole) != len(other.whole) or self._dtype is not other._dtype:
            return False
        return self._in_memory() == other._in_memory()

    def _in_memory(self) -> bytes:
        """The bytes in the order in which the tensor's values stand."""
        rows = np.frombuffer(self.whole, np.uint8)
        if self._axis:
            rows = rows.reshape(self.number, self._shape[0], -1).swapaxes(0, 1)
        return rows.tobytes()

    def tensor(self) -> Tensor:
        """The state's tensor as it was."""
        shape = list(self._shape)
        if self._axis:
            shape[0], shape[self._axis] = shape[self._axis], shape[0]
        values = torch.frombuffer(bytearray(self.whole), dtype=self._dtype).view(shape)
        return (values.swapaxes(0, self._axis) if self._axis else values).to(self._device)


_NOTHING: tuple[int, Sequence[Rows]] = (-1, ())  # the call, and what it left


class OfOneCall(Sequence[Origin | None]):
    """The origins of the lanes of a state that one call has left as it is; made when somebody asks.

    Args:
        call: The number of the call.
        field: Which of its tensors.
        rows: The lanes.

    Attributes:
        call: As above.
        field: As above.
    """

    __slots__ = ("_empty", "_number", "call", "field")

    def __init__(self, call: int, field: int, rows: Rows) -> None:
        self.call, self.field, self._number, self._empty = call, field, rows.number, rows.empty

    @property
    def is_whole(self) -> bool:
        """Whether no lane is empty."""
        return not self._empty

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, lane: Any) -> Any:
        if not 0 <= lane < self._number:
            raise IndexError
        return None if lane in self._empty else Origin(self.call, self.field, lane)

    def left_by(self) -> set[tuple[int, int]]:
        """The call and the field, if any lane is known."""
        return {(self.call, self.field)} if len(self._empty) < self._number else set()


def left_by(lanes: Sequence[Origin | None]) -> set[tuple[int, int]]:
    """The calls, and which of their tensors, that lanes come from, as far as these are known."""
    if isinstance(lanes, OfOneCall):
        return lanes.left_by()
    return {(origin.call, origin.field) for origin in lanes if origin is not None}


def calls_in(origins: Sequence[Sequence[Origin | None]]) -> Set[int]:
    """The calls that the lanes of a state's fields come from, as far as these are known."""
    return {call for lanes in origins for call, _ in left_by(lanes)}


class Lanes:
    """The lanes that calls have left, the last ones of them.

    A state mostly enters whole, as the last call of its layer has left it. So what was left is cut into lanes only when
    some state is another one.
    """

    def __init__(self) -> None:
        self._calls: deque[Sequence[Rows]] = deque(maxlen=_MOST_CALLS)  # what the last calls have left
        self._layers: list[int] = []  # of all calls
        self._last: dict[int, tuple[int, Sequence[Rows]]] = {}  # of each layer, its last call, and what it left
        self._num_cut = 0  # calls whose lanes are in `_origins`, or are forgotten
        self._origins: dict[bytes, list[Origin]] = {}

    def leave(self, layer: int, fields: Sequence[Rows]) -> None:
        """Remember what the next call has left: the bytes of each lane of each field."""
        for rows in self._last[layer][1] if layer in self._last else ():
            rows.let_go()
        if self._origins and len(self._calls) == self._calls.maxlen:
            self._forget(len(self._layers) - len(self._calls), self._calls[0])
        self._last[layer] = len(self._layers), fields
        self._layers.append(layer)
        self._calls.append(fields)

    def rows(self, layer: int, fields: Sequence[Tensor], axis: int) -> Sequence[Rows]:
        """The lanes of a state that enters a layer, mostly those that its last call has left."""
        _, left = self._left_last(layer)
        if len(left) == len(fields) and all(map(Rows.is_still, left, fields)):
            return left
        return [Rows(field, axis) for field in fields]

    def are_mixed(self, rows: Rows) -> bool:
        """Whether a state is what a layer has left last, its values cut into other rows."""
        return any(field.is_viewed_as(rows) for _, left in self._last.values() for field in left)

    def release(self) -> None:
        """Hold no memory of tensors."""
        for _, left in self._last.values():
            for rows in left:
                rows.let_go()

    def _left_last(self, layer: int) -> tuple[int, Sequence[Rows]]:
        last = self._last.get(layer, _NOTHING)
        return last if last[0] >= len(self._layers) - len(self._calls) else _NOTHING

    def origins(self, layer: int, rows: Rows, field: int) -> Sequence[Origin | None]:
        """Where the lanes of a field come from that enters a layer; None where it is unknown, or a lane is empty.

        The call that left these bytes, if possible of the same layer, field and lane, and the latest of these.
        """
        call, left = self._left_last(layer)
        if field < len(left) and (left[field] is rows or left[field].is_same(rows)):
            return OfOneCall(call, field, rows)
        self._cut()
        found: list[Origin | None] = [self._origin(layer, row, field, lane) for lane, row in enumerate(rows)]
        for lane in rows.empty:
            found[lane] = None
        return found

    def _origin(self, layer: int, row: bytes, field: int, lane: int) -> Origin | None:
        def likeness(origin: Origin) -> tuple[bool, bool, bool, int]:
            is_same_layer = self._layers[origin.call] == layer
            return is_same_layer, origin.field == field, origin.lane == lane, origin.call

        return max(self._origins.get(row, ()), key=likeness, default=None)

    def _cut(self) -> None:
        first = max(self._num_cut, len(self._layers) - len(self._calls))
        uncut = itertools.islice(self._calls, first - len(self._layers) + len(self._calls), None)
        for call, fields in enumerate(uncut, first):
            for number, rows in enumerate(fields):
                for lane, row in enumerate(rows):
                    self._origins.setdefault(row, []).append(Origin(call, number, lane))
        self._num_cut = len(self._layers)

    def _forget(self, call: int, left: Sequence[Rows]) -> None:
        for row in itertools.chain(*left) if call < self._num_cut else ():
            others = [origin for origin in self._origins.get(row, ()) if origin.call != call]
            if others:
                self._origins[row] = others
            else:
                self._origins.pop(row, None)


def is_empty(row: bytes) -> bool:
    """Whether a lane holds zeros alone; a negative zero is one."""
    return not row.strip(_ZEROS)


def fields_of(state: Any) -> list[Tensor]:
    """The tensors of a recurrent layer's state: the hidden state, and the cells where there are some."""
    if isinstance(state, Tensor):
        return [state]
    return [field for field in state if isinstance(field, Tensor)] if isinstance(state, (tuple, list)) else []
