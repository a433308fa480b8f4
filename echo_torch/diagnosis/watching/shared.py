"""Tensors that share their memory with an array of numpy: no mode of torch's functions sees how they are made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import _is_torch_function_enabled

from echo_torch.diagnosis.watching.places import Places


class Shared:
    """Stands in the place of `torch.from_numpy` while it is open, and notes the arrays that it is given.

    Args:
        places: Whose arrays they are.
        guarded: Makes what notes them unable to raise.
    """

    def __init__(self, places: Places, guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
        self._places = places
        self._note = guarded(self._note_array)
        self._before: Callable[..., Tensor] | None = None
        self._wrapper: Any = None

    def begin(self) -> None:
        """Note arrays from now on."""
        self._before = torch.from_numpy
        self._wrapper = torch.from_numpy = _around(self._before, self._note)

    def end(self) -> None:
        """Leave the function as it was; where somebody has wrapped this meanwhile, it only hands on."""
        if self._before is not None and torch.from_numpy is self._wrapper:
            torch.from_numpy, self._before = self._before, None

    def _note_array(self, array: Any) -> None:
        # What is made while functions are not followed is made by the watch itself.
        if not self._places.is_paused and _is_torch_function_enabled() and isinstance(array, np.ndarray) and array.size:
            self._places.arrays.read_numpy(array)


def _around(before: Callable[..., Tensor], note: Callable[..., None]) -> Callable[..., Tensor]:
    """The function, and a word of what it is given."""

    @functools.wraps(before)
    def from_numpy(*given: Any, **named: Any) -> Tensor:
        tensor = before(*given, **named)
        note(*given)
        return tensor

    from_numpy.__module__, from_numpy.__qualname__ = "torch", "from_numpy"  # by which a dataset may be pickled
    return from_numpy


CODE = _around(torch.from_numpy, print).__code__  # where the function is called in the script's place
