"""Lanes of states known again by their bytes: which call left what enters now?"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_MOST_CALLS = 256  # whose lanes are remembered


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


def rows_of(field: Tensor, axis: int) -> list[bytes]:
    """The bytes of each lane of a state's tensor.

    Args:
        field: (layers, lanes, features), or (lanes, features), or without lanes.
        axis: Which axis counts the lanes.
    """
    values = field.detach().cpu()
    values = values.view(torch.int16) if values.dtype is torch.bfloat16 else values  # numpy has no such floats
    rows = np.moveaxis(values.numpy(), axis, 0)
    whole = rows.tobytes()
    width = len(whole) // max(1, len(rows))
    return [whole[start : start + width] for start in range(0, len(whole), width)] if width else []


class Lanes:
    """The lanes that calls have left, the last ones of them."""

    def __init__(self) -> None:
        self._calls: OrderedDict[int, list[list[bytes]]] = OrderedDict()
        self._origins: dict[bytes, list[Origin]] = {}

    def leave(self, call: int, fields: list[list[bytes]]) -> None:
        """Remember what a call has left: the bytes of each lane of each field."""
        self._calls[call] = fields
        for number, rows in enumerate(fields):
            for lane, row in enumerate(rows):
                self._origins.setdefault(row, []).append(Origin(call, number, lane))
        if len(self._calls) > _MOST_CALLS:
            self._forget(*self._calls.popitem(last=False))

    def _forget(self, call: int, fields: list[list[bytes]]) -> None:
        for rows in fields:
            for row in rows:
                left = [origin for origin in self._origins.get(row, ()) if origin.call != call]
                if left:
                    self._origins[row] = left
                else:
                    self._origins.pop(row, None)

    def origins(self, row: bytes) -> list[Origin]:
        """The calls that have left these bytes, the latest last."""
        return self._origins.get(row, [])


def is_empty(row: bytes) -> bool:
    """Whether a lane holds zeros alone; a negative zero is one."""
    return not any(row.replace(b"\x80", b"\x00")) if len(row) < 64 else not row.strip(b"\x00\x80")


def fields_of(state: Any) -> list[Tensor]:
    """The tensors of a recurrent layer's state: the hidden state, and the cells where there are some."""
    if isinstance(state, Tensor):
        return [state]
    return [field for field in state if isinstance(field, Tensor)] if isinstance(state, (tuple, list)) else []
