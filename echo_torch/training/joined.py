"""Chunks joined to larger ones where that changes no answer: one call of a network for many costs little more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.data.chunk import Chunk


class Placed(NamedTuple):
    """A chunk, or several that are joined.

    Attributes:
        chunk: The chunk.
        place: For each column the number of its chunk in the sequence that the lane reads, int64 (lanes, steps), on
            the CPU.
        number: How many chunks it is.
    """

    chunk: Chunk
    place: Tensor
    number: int = 1


def with_places(chunks: Iterable[Chunk]) -> Iterator[Placed]:
    """Each chunk with its place in the sequence that a lane reads."""
    last: Tensor | None = None
    place = torch.zeros(0, dtype=torch.int64)
    for chunk in chunks:
        sequence = chunk.sequence
        place = torch.zeros_like(sequence) if last is None else torch.where(sequence == last, place + 1, 0)
        last = sequence
        yield Placed(chunk, place[:, None].expand(chunk.symbols.shape))


def joined(chunks: Iterable[Placed], max_symbols: int) -> Iterator[Placed]:
    """The same chunks, joined as far as their answers stay the same, for a network whose lanes do not mix.

    Those that go on with the state of the one before are joined in time; and what begins with all lanes reset is put
    beside what begins so, too.

        starts      all      none     all      none     all      none
        chunk        0        1        2        3        4        5       ->    0 1 | 2 3 | 4 5   side by side

    Args:
        chunks: In stream order.
        max_symbols: So many symbols, or a little more, are in one.
    """
    beside: list[Placed] = []
    size = 0
    for one in _in_a_row(chunks, max_symbols):
        if size >= max_symbols or not bool(one.chunk.starts.all()):
            yield from _side_by_side(beside)
            beside, size = [], 0
        beside.append(one)
        size += one.chunk.symbols.numel()
    yield from _side_by_side(beside)


def _in_a_row(chunks: Iterable[Placed], max_symbols: int) -> Iterator[Placed]:
    row: list[Placed] = []
    size = 0
    for one in chunks:
        if row and (size >= max_symbols or bool(one.chunk.starts.any())):
            yield _join(row, axis=1)
            row, size = [], 0
        row.append(one)
        size += one.chunk.symbols.numel()
    if row:
        yield _join(row, axis=1)


def _side_by_side(beside: Sequence[Placed]) -> Iterator[Placed]:
    for _, alike in groupby(beside, key=lambda one: one.chunk.symbols.shape[1]):
        yield _join(list(alike), axis=0)


def _join(parts: Sequence[Placed], axis: int) -> Placed:
    """One chunk of several, their lanes below one another (axis 0) or their steps behind one another (axis 1)."""
    if len(parts) == 1:
        return parts[0]
    *fields, _ = zip(*(one.chunk for one in parts), strict=True)
    # Which lanes start, and what they read, has no axis of steps and stands once for all of them.
    whole = [torch.cat(values, dim=axis) if axis < values[0].ndim else values[0] for values in fields]
    chunk = Chunk._make([*whole, parts[0].chunk.index])
    return Placed(chunk, torch.cat([one.place for one in parts], dim=axis), sum(one.number for one in parts))
