"""The stream: chunks, in order, from any chunk on, for any number of workers and ranks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import cached_property
from itertools import count
from multiprocessing import connection
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.data.framing import NO_STEP
from echo_torch.data.layout import UNUSED_ROW, Layout, Places
from echo_torch.data.random_symbols import Integers
from echo_torch.data.values import (
    check_alike,
    checked_answers,
    checked_symbols,
    is_float,
    only_where,
    readings_where,
    spread_answers,
)
from echo_torch.errors import ENDINGS, RuleError

# Chunks are made many at a time, because one call of numpy costs as much as a thousand symbols, yet few enough
# that the memory stays in the cache.
_SYMBOLS_PER_BLOCK = 2**14
_SECONDS_AFTER_SIGTERM = 10  # a loaded machine takes long over an update

Targets: TypeAlias = Callable[[Integers, Integers], ArrayLike]


class Source(Protocol):
    """Where symbols, or readings, come from.

    A source of readings may have two things more, as `OwnSeries` has: a method `exists(sequence, step) -> bool`, which
    tells a reading that is missing from a series that has ended, and `num_features`, so that of wide vectors fewer are
    made at a time.
    """

    def __call__(self, sequence: Integers, step: Integers) -> NDArray[Any]:
        """What stands at some places.

        Args:
            sequence: int64, broadcasts with `step`; -1 for a row that is not used.
            step: int64; a negative step is no place.

        Returns:
            Symbols, integers of the broadcast shape, -1 where there is none; or readings, floats of the broadcast
            shape, or vectors of them (..., features), NaN where there is none.
        """
        ...


class Block(NamedTuple):
    """Chunks that follow one another, as arrays with an axis more, the chunks, before those that `Chunk` has."""

    symbols: NDArray[Any]
    targets: NDArray[Any]
    starts: NDArray[np.bool_]
    sequence: Integers
    step: Integers
    index: Integers  # type: ignore[assignment]  # hides tuple.index, as that of `Chunk` does


class EchoStream(IterableDataset[Chunk]):
    """An endless or bounded stream of chunks, of symbols or of readings: floats, or vectors of them.

    Chunk k is a pure function of k: a stream that starts at k yields what another yields after skipping k, and
    the chunks are the same, in the same order, for any number of loader workers.

        layout = WindowLayout(frame_windows(25, 5, lag=1, num_dropped=1), length=25, batch_size=5)
        stream = EchoStream(layout, RandomSymbols(vocabulary_size=100, seed=1), num_chunks=8000)
        for chunk in stream.loader():
            ...

    Series of one's own, each read from its first step to its last, and asked for the next reading:

        >>> from echo_torch.data import OwnSeries, SeriesLayout
        >>> series = OwnSeries([[0.5, 0.75, 1.0], [2.5, 2.0]])
        >>> layout = SeriesLayout(series.lengths, num_lanes=2, chunk_length=2)
        >>> stream = EchoStream(layout, series, targets=lambda sequence, step: series(sequence, step + 1))
        >>> chunk = next(iter(stream))
        >>> chunk.symbols.tolist(), chunk.targets.tolist()
        ([[0.5, 0.75], [2.5, 2.0]], [[0.75, 1.0], [2.0, nan]])

    Args:
        layout: Which lane of which chunk reads which step.
        source: What stands where, a `Source`: (sequence, step) -> symbols or readings. Floats keep their type; where
            one is missing, zeros are read.
        targets: What is asked where: (sequence, step) -> integers (places,), or floats (places,) or
            (places, features). It gets two int64 arrays (places,): places where something stands, and no others. What
            the layout asks plays no part. -100, or NaN, asks nothing. Floats become those of the source, or
            float32 beside symbols. None: the echo, what the source has at the layout's `answer`.
        is_missing: (sequence, step) -> bool, what cannot be read. It is asked all the same.
        num_chunks: The stream ends before this chunk number; None: it never ends.
        start: The first chunk's number.
        rank: This process, 0 <= rank < num_ranks. Every rank gets the same number of lanes of each chunk, whole
            lanes and always the same ones; where the lanes do not divide, the last ranks get unused rows.
        num_ranks: Processes that share the lanes.

    Raises:
        RuleError: If a number is out of range, or `targets` is no function. From iterating, if `source` or `targets`
            return something else than numbers, or not one for each place.
    """

    def __init__(
        self,
        layout: Layout,
        source: Source,
        *,
        targets: Targets | None = None,
        is_missing: Callable[[Integers, Integers], NDArray[np.bool_]] | None = None,
        num_chunks: int | None = None,
        start: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        super().__init__()
        if start < 0:
            raise RuleError("start", "$start must be at least 0: chunks are counted from 0", start)
        if num_chunks is not None and num_chunks < 0:
            raise RuleError(
                "num_chunks", "$num_chunks must be at least 0, or None for a stream without end", num_chunks
            )
        if not 0 <= rank < num_ranks:
            raise RuleError("rank", f"$rank must be one of 0..{num_ranks - 1}, for $num_ranks={num_ranks}", rank)
        if targets is not None and not callable(targets):
            raise RuleError(
                "targets",
                "$targets must be a function (sequence, step) -> values",
                type(targets).__name__,
                way_out="for an array write lambda sequence, step: array[sequence, step]",
            )
        self.layout = layout
        self.source = source
        self.targets = targets
        self.is_missing = is_missing
        self.num_chunks = num_chunks
        self.start = start
        self.rank = rank
        self.num_ranks = num_ranks

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks from `start` on; in a loader worker its share, every n-th."""
        worker = get_worker_info()
        first, stride = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        for index in self._indices(first, stride):
            for chunk in self._make(index):
                # A view sent to another process takes the whole block along; a copy goes alone.
                yield chunk if worker is None else _copy(chunk)

    def blocks(self) -> Iterator[Block]:
        """The chunks from `start` on, many at a time: for what looks at millions of them."""
        return (self.block(index) for index in self._indices(self.start, 1))

    def _indices(self, first: int, stride: int) -> Iterator[Integers]:
        """The numbers of the chunks that are made at a time."""
        num_features = getattr(self.source, "num_features", None) or 1
        per_block = max(1, _SYMBOLS_PER_BLOCK // (self.layout.num_lanes * self.layout.num_steps * num_features))
        for begin in count(first, stride * per_block):
            end = begin + stride * per_block
            if self.num_chunks is not None:
                end = min(end, self.num_chunks)
            index = np.arange(begin, end, stride)
            if not len(index):
                return
            yield index

    def loader(self, *, num_workers: int = 0, block: Callable[[int], int] | None = None) -> DataLoader[Any]:
        """A DataLoader that hands the chunks on as they are, in order.

        Args:
            num_workers: Processes that make chunks ahead of time; 0 makes them in this one, which is as quick at
                the tutorial's sizes.
            block: Several chunks are handed on at a time, as a `Block`, for a training that makes several updates of
                one batch. It says where: number of a block's first chunk -> that of the chunk after its last. In
                several worker processes it must say the same in all of them. None: one chunk at a time.
        """
        # A generator of its own: otherwise every pass would draw its base seed from the global random state.
        return DataLoader(
            self if block is None else _Blocks(self, block),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            generator=torch.Generator(),
            worker_init_fn=_begin_worker,
        )

    def _make(self, index: Integers) -> Iterator[Chunk]:
        # unbind makes all views in one call; indexing would cost a call for each field of each chunk.
        *fields, _ = self.block(index)
        columns = (torch.from_numpy(field).unbind(0) for field in fields)
        return map(Chunk._make, zip(*columns, index.tolist(), strict=True))

    def block(self, index: Integers) -> Block:
        """The chunks of the given numbers, int64 (n,), as arrays that can be written to."""
        places = _shard(self.layout.places(index), self.rank, self.num_ranks)
        sequence, step = places.sequence[:, :, None], places.step
        symbols, is_there = self._read(sequence, step)
        if self.targets is None:
            targets = self._echo(sequence, places.answer, is_there)
        else:
            targets = self._ask(self.targets, sequence, step, is_there, symbols.dtype)
        if is_float(symbols):
            # A symbol says by -1 that nothing is read there. A reading has no such value, so its step says it.
            step = np.where(is_there, step, NO_STEP)
            symbols = readings_where(is_there, symbols)
        if self.is_missing is not None:
            nothing = 0 if is_float(symbols) else -1
            symbols = only_where(~self.is_missing(sequence, places.step), symbols, nothing)
        fields = (symbols, targets, places.starts, places.sequence, step, index)
        return Block._make(np.require(field, requirements=["C", "W"]) for field in fields)

    def _read(self, sequence: Integers, step: Integers) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What the source has, and where something stands, be it missing or not."""
        symbols = checked_symbols(self.source(sequence, step), step.shape)
        if not is_float(symbols):
            return symbols, (symbols >= 0) & (step >= 0)
        exists = getattr(self.source, "exists", None)
        return symbols, (sequence >= 0) & (step >= 0) if exists is None else exists(sequence, step)

    def _echo(self, sequence: Integers, answer: Integers, is_there: NDArray[np.bool_]) -> NDArray[Any]:
        echo = checked_symbols(self.source(sequence, answer), answer.shape)
        # A source without end has a symbol at every step; where one has ended, nothing is asked any more.
        is_asked = (answer != NO_STEP) & is_there
        if is_float(echo):
            return only_where(is_asked, echo, np.nan)
        return only_where(is_asked & (echo >= 0), echo, NOT_ASKED)

    def _ask(
        self, targets: Targets, sequence: Integers, step: Integers, is_there: NDArray[np.bool_], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        example = self._example_answer
        if example is not None and not is_there.any():  # a rank with unused rows alone has the others' type of targets
            return spread_answers(example[:0], is_there)
        answers = checked_answers(targets(*_flat(sequence, step, is_there)), int(is_there.sum()), dtype)
        if example is not None:
            check_alike(answers, example)
        return spread_answers(answers, is_there)

    @cached_property
    def _example_answer(self) -> NDArray[Any] | None:
        """What is asked at a place of chunk 0, of whatever lane: its type is that of all targets of all ranks."""
        places = self.layout.places(np.zeros(1, dtype=np.int64))
        sequence, step = places.sequence[:, :, None], places.step
        symbols, is_there = self._read(sequence, step)
        if self.targets is None or not is_there.any():
            return None
        one_sequence, one_step = (values[:1] for values in _flat(sequence, step, is_there))
        return checked_answers(self.targets(one_sequence, one_step), 1, symbols.dtype)


class _Blocks(IterableDataset[Block]):
    """The blocks of a stream, from where it starts; in a loader worker its share, every n-th."""

    def __init__(self, stream: EchoStream, end_of: Callable[[int], int]) -> None:
        super().__init__()
        self._stream, self._end_of = stream, end_of

    def __iter__(self) -> Iterator[Block]:
        worker = get_worker_info()
        own, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        last, begin = self._stream.num_chunks, self._stream.start
        for number in count():
            if last is not None and begin >= last:
                return
            end = self._end_of(begin) if last is None else min(last, self._end_of(begin))
            if number % stride == own:
                yield self._stream.block(np.arange(begin, end))
            begin = end


def _flat(sequence: Integers, step: Integers, mask: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    return np.broadcast_to(sequence, step.shape)[mask], step[mask]


def _shard(places: Places, rank: int, num_ranks: int) -> Places:
    if num_ranks == 1:
        return places
    num_lanes = places.sequence.shape[1]
    per_rank = -(-num_lanes // num_ranks)
    empty = {"sequence": UNUSED_ROW, "step": NO_STEP, "answer": NO_STEP, "starts": True}

    def share(name: str, field: Integers) -> Integers:
        padding = [(0, 0), (0, per_rank * num_ranks - num_lanes), (0, 0)][: field.ndim]
        padded = np.pad(field, padding, constant_values=empty[name])
        return padded[:, rank * per_rank : (rank + 1) * per_rank]

    return Places._make(share(name, field) for name, field in places._asdict().items())


def num_chunks_of(chunks: Iterable[Any]) -> int | None:
    """How many chunks there are, where that can be known before they are read; None where it cannot, or without end."""
    if isinstance(chunks, Sized):
        try:
            return len(chunks)
        except TypeError:  # a DataLoader has a length only where its dataset has one
            return None
    end = getattr(chunks, "num_chunks", None)
    return None if end is None else max(0, end - getattr(chunks, "start", 0))


def is_in_blocks(chunks: Iterable[Any]) -> TypeGuard[EchoStream]:
    """Whether these are the chunks of the blocks of a stream; a subclass may iterate over others."""
    return isinstance(chunks, EchoStream) and type(chunks).__iter__ is EchoStream.__iter__


def _copy(chunk: Chunk) -> Chunk:
    return Chunk._make(field.clone() if isinstance(field, Tensor) else field for field in chunk)


def _begin_worker(worker: int) -> None:
    # Ctrl-C, the end of a terminal and a service manager's SIGTERM reach all processes, and the one that trains needs
    # these to end its update.
    for number in set(ENDINGS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    # Not ignored: SIGTERM is also how that one ends a worker when it is done, and it waits for it.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_AFTER_SIGTERM))
    # Errors of the dataset go to the one that trains; here only those of a thread that hands chunks on would be shown.
    sys.excepthook = _show_unless_left
    # torch asks for its parent, which is another process where a server has forked this one; then it would never end.
    main = multiprocessing.parent_process()
    if main is not None:
        threading.Thread(target=_end_with, args=(main.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _show_unless_left(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, (EOFError, ConnectionError)):  # the one that trains has ended in the middle of a chunk
        sys.__excepthook__(kind, error, traceback)


def _as_it_is(chunk: Any) -> Any:
    return chunk
