"""Lanes of states known again by their bytes: which call left what enters now?"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor

_MOST_CALLS = 256  # whose lanes are remembered
_ZEROS = b"\x00\x80"  # the bytes of zeros; a negative zero is one


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
        numel: Values of all lanes.
    """

    __slots__ = ("_axis", "_device", "_dtype", "_empty", "_shape", "_width", "number", "numel", "whole")

    def __init__(self, field: Tensor, axis: int) -> None:
        values = field.detach()
        self._dtype, self._device, self.numel = values.dtype, values.device, values.numel()
        self._axis = min(axis, max(0, values.ndim - 1))
        values = values.cpu()
        values = values.view(torch.int16) if values.dtype is torch.bfloat16 else values  # numpy has no such floats
        rows = values.numpy()
        rows = rows.swapaxes(0, self._axis) if self._axis else rows
        self._shape = rows.shape
        self.whole = rows.tobytes()
        self.number = (self._shape[0] if self._shape else 1) if self.whole else 0
        self._width = len(self.whole) // max(1, self.number)
        self._empty: list[int] | None = None

    @property
    def empty(self) -> list[int]:
        """The lanes that hold zeros alone."""
        if self._empty is None:
            ends = self.whole[self._width - 1 :: self._width] if self.whole else b""
            is_none = not any(zero in ends for zero in _ZEROS)  # the last byte of each lane mostly tells
            self._empty = [] if is_none else [lane for lane, row in enumerate(self) if is_empty(row)]
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

    def tensor(self) -> Tensor:
        """The state's tensor as it was."""
        values = torch.frombuffer(bytearray(self.whole), dtype=self._dtype).view(self._shape)
        return values.swapaxes(0, self._axis).to(self._device)


class _OfOneCall(Sequence[Origin | None]):
    """The origins of the lanes of a state that one call has left as it is; made when somebody asks."""

    __slots__ = ("_call", "_empty", "_field", "_number")

    def __init__(self, call: int, field: int, rows: Rows) -> None:
        self._call, self._field, self._number, self._empty = call, field, rows.number, rows.empty

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, lane: Any) -> Any:
        if not 0 <= lane < self._number:
            raise IndexError
        return None if lane in self._empty else Origin(self._call, self._field, lane)

    def calls(self) -> set[int]:
        """The call, if any lane is known."""
        return {self._call} if len(self._empty) < self._number else set()


def calls_in(origins: Sequence[Sequence[Origin | None]]) -> Set[int]:
    """The calls that the lanes of a state's fields come from, as far as these are known."""
    found: set[int] = set()
    for lanes in origins:
        found |= lanes.calls() if isinstance(lanes, _OfOneCall) else {each.call for each in lanes if each is not None}
    return found


class Lanes:
    """The lanes that calls have left, the last ones of them.

    A state mostly enters whole, as the last call of its layer has left it. So what was left is cut into lanes only when
    some state is another one.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[int, tuple[int, list[Rows]]] = OrderedDict()  # the layer, and what it left
        self._last: dict[int, int] = {}  # of each layer, its last call
        self._uncut: deque[int] = deque()  # calls whose lanes are not in `_origins` yet
        self._origins: dict[bytes, list[Origin]] = {}

    def leave(self, call: int, layer: int, fields: list[Rows]) -> None:
        """Remember what a call has left: the bytes of each lane of each field."""
        self._calls[call] = layer, fields
        self._last[layer] = call
        self._uncut.append(call)
        if len(self._calls) > _MOST_CALLS:
            self._forget(*self._calls.popitem(last=False))

    def origins(self, layer: int, rows: Rows, field: int) -> Sequence[Origin | None]:
        """Where the lanes of a field come from that enters a layer; None where it is unknown, or a lane is empty.

        The call that left these bytes, if possible of the same layer, field and lane, and the latest of these.
        """
        last = self._last.get(layer, -1)
        left = self._calls[last][1] if last in self._calls else []
        if field < len(left) and left[field].is_same(rows):
            return _OfOneCall(last, field, rows)
        self._cut()
        found: list[Origin | None] = [self._origin(layer, row, field, lane) for lane, row in enumerate(rows)]
        for lane in rows.empty:
            found[lane] = None
        return found

    def _origin(self, layer: int, row: bytes, field: int, lane: int) -> Origin | None:
        def likeness(origin: Origin) -> tuple[bool, bool, bool, int]:
            is_same_layer = self._calls[origin.call][0] == layer
            return is_same_layer, origin.field == field, origin.lane == lane, origin.call

        return max(self._origins.get(row, ()), key=likeness, default=None)

    def _cut(self) -> None:
        while self._uncut:
            call = self._uncut.popleft()
            for number, rows in enumerate(self._calls[call][1]):
                for lane, row in enumerate(rows):
                    self._origins.setdefault(row, []).append(Origin(call, number, lane))

    def _forget(self, call: int, left: tuple[int, list[Rows]]) -> None:
        if self._uncut and self._uncut[0] == call:
            self._uncut.popleft()
            return
        for row in itertools.chain(*left[1]):
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
