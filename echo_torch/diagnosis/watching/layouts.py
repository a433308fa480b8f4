"""Which axis of what a layer reads counts rows, and which counts steps? What a script does to tensors tells.

A `view` that exchanges the sizes of two axes leaves the values where they were: they are mixed. Pieces that are stacked
are rows, so a layer that takes the axis along which they were stacked for its steps has its axes wrong. So has one
whose output is read in its last row alone, where the last step was meant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from echo_torch.diagnosis.watching.marks import Marks
from echo_torch.diagnosis.watching.regular import written_out

_VIEWS = {"view", "reshape", "view_as", "reshape_as", "flatten", "unflatten"}
_STACKS = {"stack", "cat", "concat", "vstack", "unfold"}
_MOST_PIECES = 2**16  # that are remembered


class _Viewed(NamedTuple):
    """The shape in which the values of a tensor stand in their order, and whether axes have been exchanged since."""

    shape: tuple[int, ...]
    is_exchanged: bool


class _Output(NamedTuple):
    """What a layer has given: the axis that counts its rows, and what is to be done if its last row is taken alone."""

    axis: int
    notice: Callable[[], None]


class Layouts:
    """What is done to tensors that tells their axes, noted as it is done.

    Attributes:
        pieces: Of vectors that were stacked, the first place, the last and the length.
    """

    def __init__(self) -> None:
        self.pieces: set[tuple[int, int, int]] = set()
        self._viewed: Marks[_Viewed] = Marks()
        self._outputs: Marks[_Output] = Marks()

    def is_exchanged(self, tensor: Tensor) -> bool:
        """Whether axes of a tensor have been exchanged without its values."""
        viewed = self._viewed.of(tensor)
        return viewed is not None and viewed.is_exchanged

    def give(self, output: Tensor, axis: int, notice: Callable[[], None]) -> None:
        """A layer gives an output whose rows are counted by an axis; `notice` is called if its last row is taken."""
        self._outputs.set(output, _Output(axis, notice))

    def move(self, name: str, given: Sequence[Any], result: Any) -> None:
        """A function has moved values about."""
        source = given[0] if given else None
        if not isinstance(source, Tensor):
            return
        output = self._outputs.of(source)
        if output is not None and _takes_last(name, given, output.axis, source.ndim):
            output.notice()
        if name in _VIEWS and isinstance(result, Tensor):
            viewed = self._viewed.of(source)
            shape = tuple(source.shape) if viewed is None else viewed.shape
            self._viewed.set(result, _Viewed(shape, exchanges(shape, result.shape)))
        elif self.is_exchanged(source):
            for tensor in (result,) if isinstance(result, Tensor) else result:
                self._viewed.set(tensor, _Viewed(tuple(tensor.shape), is_exchanged=True))

    def treat(self, given: Sequence[Any], result: Tensor) -> None:
        """A function has treated each value, or each vector, alone."""
        if not (len(self._viewed) or len(self._outputs)):
            return
        for source in given:
            viewed, output = self._viewed.of(source), self._outputs.of(source)
            if (viewed is None and output is None) or source.shape[:2] != result.shape[:2]:
                continue
            if viewed is not None and source.shape[:-1] == result.shape[:-1]:
                is_vector = viewed.shape[-1:] == source.shape[-1:]
                shape = (*viewed.shape[:-1], result.shape[-1]) if is_vector else viewed.shape
                self._viewed.set(result, _Viewed(shape, viewed.is_exchanged))
            if viewed is not None and source.shape == result.shape[:-1]:  # a vector for each value
                self._viewed.set(result, _Viewed((*viewed.shape, result.shape[-1]), viewed.is_exchanged))
            if output is not None and source.ndim == result.ndim:
                self._outputs.set(result, output)

    def stack(self, name: str, given: Sequence[Any], named: dict[str, Any], result: Any, places: Any) -> None:
        """Vectors may have been stacked: remember where each begins and ends."""
        if name not in _STACKS or not isinstance(result, Tensor) or not 2 <= result.ndim <= 3:
            return
        axis = given[1] if len(given) > 1 else named.get("dim", named.get("dimension", 0))
        if name in ("cat", "concat", "vstack") and result.shape[axis] != len(given[0]):
            return
        rows = places.movedim(axis, 0)
        rows = rows[:, 0] if name == "unfold" and rows.ndim == 3 else rows[..., 0] if rows.ndim == 3 else rows
        if rows.shape[0] > 1 < rows.shape[1]:
            first, last = (written_out(ends).tolist() for ends in (rows[:, 0], rows[:, -1]))
            self._add_pieces(first, last, rows.shape[1])

    def stack_regular(self, parts: Sequence[Tensor]) -> None:
        """The same of a stack of parts, whose places are regular."""
        length = parts[0].shape[0] if parts[0].ndim in (1, 2) else 0
        if len(parts) > 1 < length:
            first = [int(part.storage_offset()) for part in parts]
            last = [place + (length - 1) * part.stride(0) for place, part in zip(first, parts, strict=True)]
            self._add_pieces(first, last, length)

    def _add_pieces(self, first: list[int], last: list[int], length: int) -> None:
        if len(self.pieces) + len(first) <= _MOST_PIECES:
            self.pieces.update(zip(first, last, itertools.repeat(length), strict=False))


def exchanges(source: Sequence[int], result: Sequence[int]) -> bool:
    """Whether a view of the first shape as the second makes its first axis another one, without moving a value.

    >>> exchanges((80, 6), (6, 80, 1)), exchanges((80, 6, 2), (480, 2)), exchanges((4, 24), (4, 6, 4))
    (True, False, False)
    """
    sizes = [size for size in source if size > 1]
    if len(sizes) < 2:
        return False
    ends = [1, *itertools.accumulate((size for size in result if size > 1), lambda one, other: one * other)]
    if sizes[0] in ends:
        return False
    borders = {math.prod(sizes[:number]) for number in range(len(sizes) + 1)}
    return any(end == start * sizes[0] and start not in borders for start, end in itertools.pairwise(ends))


def _takes_last(name: str, given: Sequence[Any], axis: int, ndim: int) -> bool:
    """Whether the last of an axis is taken alone, counted from the end as one takes a last step."""
    if name == "select":
        return len(given) == 3 and given[1] % ndim == axis and given[2] == -1
    if name != "__getitem__" or len(given) != 2:
        return False
    index = given[1] if isinstance(given[1], tuple) else (given[1],)
    is_int = len(index) > axis and type(index[axis]) is int
    return is_int and index[axis] == -1 and all(part == slice(None) for part in index[:axis])
