"""Marks on tensors that end with them."""

from __future__ import annotations

import functools
import weakref
from typing import Any, Generic, TypeVar

from torch import Tensor

Mark = TypeVar("Mark")


class Marks(Generic[Mark]):
    """A mark for each of some tensors, as long as they live."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[weakref.ref[Tensor], Mark]] = {}

    def set(self, tensor: Tensor, mark: Mark) -> None:
        """Mark a tensor, in the place of an earlier mark."""
        key = id(tensor)
        self._marks[key] = weakref.ref(tensor, functools.partial(self._marks.pop, key)), mark

    def of(self, tensor: Any) -> Mark | None:
        """The mark of a tensor; None where it has none."""
        found = self._marks.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def __len__(self) -> int:
        return len(self._marks)
