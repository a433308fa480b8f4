"""Chunks that know nothing of one another, put beside one another: a wide chunk costs little more than a narrow one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.data.chunk import Chunk


class Placed(NamedTuple):
    """A chunk, or several beside one another.

    Attributes:
        chunk: The chunk; several have the lanes of all.
        place: For each lane the number of its chunk in the sequence that it reads, int64 (lanes,), on the CPU.
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
        yield Placed(chunk, place)


def side_by_side(chunks: Iterable[Placed], max_symbols: int) -> Iterator[Placed]:
    """The same chunks, those beside one another that follow as many others since all lanes were reset.

        starts      all      none     all      none     all      none
        chunk        0        1        2        3        4        5       ->    0|2|4,  1|3|5

    Args:
        chunks: In stream order.
        max_symbols: When so many are beside one another, others come after them.
    """
    runs: list[list[Placed]] = []  # each begins where all lanes are reset
    size = 0
    for one in chunks:
        if bool(one.chunk.starts.all()):
            if size >= max_symbols:
                yield from _joined(runs)
                runs, size = [], 0
            runs.append([])
        if not runs:
            yield one
            continue
        runs[-1].append(one)
        size += one.chunk.symbols.numel()
        if len(runs) == 1 and size >= max_symbols:  # it is long: nothing is put beside it, and it is not kept
            yield from _joined(runs)
            runs, size = [], 0
    yield from _joined(runs)


def _joined(runs: Sequence[list[Placed]]) -> Iterator[Placed]:
    for _, alike in groupby(runs, key=len):
        for beside in zip(*alike, strict=True):
            yield beside[0] if len(beside) == 1 else _side(beside)


def _side(beside: Sequence[Placed]) -> Placed:
    fields = [torch.cat(field) for field in zip(*(one.chunk[:-1] for one in beside), strict=True)]
    return Placed(Chunk._make([*fields, beside[0].chunk.index]), torch.cat([one.place for one in beside]), len(beside))
