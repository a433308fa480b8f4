"""Chunks joined to larger ones where that changes no answer: one call of a network for many costs little more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.data.chunk import Chunk
from echo_torch.data.stream import is_in_blocks, num_chunks_of


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


class ResetChunks:
    """Chunks that are each read from an empty state.

    Attributes:
        chunks: As they are.
    """

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.chunks = chunks
        self.num_chunks, self.layout = num_chunks_of(chunks), getattr(chunks, "layout", None)

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.chunks:
            yield chunk._replace(starts=torch.ones_like(chunk.starts))


class _Many(NamedTuple):
    """Chunks of one shape that follow one another: the fields of `Chunk` with an axis more before those they have."""

    symbols: Tensor
    targets: Tensor
    starts: Tensor
    sequence: Tensor
    step: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, as that of `Chunk` does


def with_places(chunks: Iterable[Chunk]) -> Iterator[Placed]:
    """Each chunk with its place in the sequence that a lane reads."""
    places = _Places()
    for chunk in chunks:
        yield Placed(chunk, places.of(chunk.sequence[None])[0, :, None].expand(chunk.symbols.shape[:2]))


def joined(chunks: Iterable[Chunk], max_symbols: int) -> Iterator[Placed]:
    """The same chunks, joined as far as their answers stay the same, for a network whose lanes do not mix.

    Those that go on with the state of the one before are joined in time, a row; and rows that begin with all lanes
    reset are put beside one another. The last row stands alone, because the next chunk may go on with its state.

        starts      all      none     all      none     all      none
        chunk        0        1        2        3        4        5       ->    0 1 | 2 3   side by side,   4 5

    Args:
        chunks: In stream order.
        max_symbols: So many symbols are in one, where a chunk does not have more.
    """
    places = _Places()
    for many in _many(chunks, max_symbols):
        place = places.of(many.sequence)
        for begin, end, num_rows in _rows(many.starts):
            yield _join(_Many._make(field[begin:end] for field in many), place[begin:end], num_rows)


class _Places:
    """How many chunks of its sequence a lane has read before each, from the first on that it is asked for."""

    def __init__(self) -> None:
        self._sequence = self._place = torch.empty(0, dtype=torch.int64)

    def of(self, sequence: Tensor) -> Tensor:
        """int64 (chunks, lanes), for what the lanes of the chunks read, in that shape."""
        number = torch.arange(1, len(sequence) + 1)[:, None]
        is_first = torch.ones_like(sequence, dtype=torch.bool)
        is_first[1:] = sequence[1:] != sequence[:-1]
        before = torch.zeros_like(sequence[0])  # chunks of the sequence that the lanes read before these chunks
        if len(self._sequence) == sequence.shape[1]:
            is_first[0] = sequence[0] != self._sequence
            before = torch.where(is_first[0], 0, self._place + 1)
        begun = torch.where(is_first, number, 0).cummax(dim=0).values  # 0: before these chunks
        place = torch.where(begun == 0, number - 1 + before, number - begun)
        self._sequence, self._place = sequence[-1], place[-1]
        return place


def _many(chunks: Iterable[Chunk], max_symbols: int) -> Iterator[_Many]:
    """As many as may be joined: parts of a stream's blocks; chunks of another source are put together."""
    if isinstance(chunks, ResetChunks):
        yield from (many._replace(starts=torch.ones_like(many.starts)) for many in _many(chunks.chunks, max_symbols))
        return
    if is_in_blocks(chunks):
        for block in chunks.blocks():
            many = _Many._make(map(torch.from_numpy, block))
            number = _at_a_time(many.step[0], max_symbols)
            yield from map(_Many._make, zip(*(torch.split(field, number) for field in many), strict=True))
        return
    alike: list[Chunk] = []
    for chunk in chunks:
        is_full = len(alike) == _at_a_time(chunk.step, max_symbols)
        if alike and (chunk.symbols.shape != alike[0].symbols.shape or is_full):
            yield _stacked(alike)
            alike = []
        alike.append(chunk)
    if alike:
        yield _stacked(alike)


def _at_a_time(step: Tensor, max_symbols: int) -> int:
    return max(1, max_symbols // step.numel())


def _stacked(chunks: list[Chunk]) -> _Many:
    *fields, index = zip(*chunks, strict=True)
    return _Many._make([*map(torch.stack, fields), torch.tensor(index)])


def _rows(starts: Tensor) -> Iterator[tuple[int, int, int]]:
    """What is joined: (first chunk, chunk after the last, number of rows of as many chunks each).

    Args:
        starts: bool (chunks, lanes).
    """
    begins = starts.any(dim=1)
    begins[0] = True
    bounds = [*begins.nonzero().flatten().tolist(), len(starts)]
    lengths = [end - begin for begin, end in pairwise(bounds)]
    is_reset = [*starts.all(dim=1)[bounds[:-1]].tolist(), False]  # the next chunk of all is not known here
    # A row stands alone that goes on with a state, or whose own state the next one may go on with.
    alike = [length if all(is_reset[row : row + 2]) else -row for row, length in enumerate(lengths)]
    for _, group in groupby(range(len(lengths)), key=alike.__getitem__):
        rows = list(group)
        yield bounds[rows[0]], bounds[rows[-1] + 1], len(rows)


def _join(many: _Many, place: Tensor, num_rows: int) -> Placed:
    """One chunk of several: rows of them below one another, those of a row behind one another."""
    number = len(many.step)
    rows = (num_rows, number // num_rows)

    def flat(field: Tensor) -> Tensor:
        return field.reshape(*rows, *field.shape[1:]).transpose(1, 2).flatten(0, 1).flatten(1, 2)

    def of_lane(field: Tensor) -> Tensor:  # what is said of a lane stands once for the whole row
        return field.reshape(*rows, -1)[:, 0].flatten()

    chunk = Chunk(
        symbols=flat(many.symbols),
        targets=flat(many.targets),
        starts=of_lane(many.starts),
        sequence=of_lane(many.sequence),
        step=flat(many.step),
        index=int(many.index[0]),
    )
    return Placed(chunk, flat(place[:, :, None].expand(many.step.shape)), number)
