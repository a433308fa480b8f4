"""The stream: chunks, in order, from any chunk on, for any number of workers and ranks."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.data.framing import NO_STEP
from echo_torch.data.layout import UNUSED_ROW, Layout, Places
from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError

# Chunks are made many at a time, because one call of numpy costs as much as a thousand symbols, yet few enough
# that the memory stays in the cache.
_SYMBOLS_PER_BLOCK = 2**14
_SECONDS_AFTER_SIGTERM = 10  # a loaded machine takes long over an update


class Source(Protocol):
    """Where symbols come from."""

    def __call__(self, sequence: Integers, step: Integers) -> Integers:
        """The symbols of some places: int64 arrays that broadcast; -1 where there is none."""
        ...


class EchoStream(IterableDataset[Chunk]):
    """An endless or bounded stream of freshly generated chunks.

    Chunk k is a pure function of k: a stream that starts at k yields what another yields after skipping k, and
    the chunks are the same, in the same order, for any number of loader workers.

        layout = WindowLayout(frame_windows(25, 5, lag=1, num_dropped=1), length=25, batch_size=5)
        stream = EchoStream(layout, RandomSymbols(vocabulary_size=100, seed=1), num_chunks=8000)
        for chunk in stream.loader():
            ...

    Args:
        layout: Which lane of which chunk reads which step.
        source: (sequence, step) -> symbols, int64 arrays that broadcast; -1 where there is none, as where the step
            is negative.
        is_missing: (sequence, step) -> bool, the symbols that cannot be read. Their echo is asked all the same.
        num_chunks: The stream ends before this chunk number; None: it never ends.
        start: The first chunk's number.
        rank: This process, 0 <= rank < num_ranks. Every rank gets the same number of lanes of each chunk, whole
            lanes and always the same ones; where the lanes do not divide, the last ranks get unused rows.
        num_ranks: Processes that share the lanes.

    Raises:
        RuleError: If a number is out of range.
    """

    def __init__(
        self,
        layout: Layout,
        source: Source,
        *,
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
        self.layout = layout
        self.source = source
        self.is_missing = is_missing
        self.num_chunks = num_chunks
        self.start = start
        self.rank = rank
        self.num_ranks = num_ranks

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks from `start` on; in a loader worker its share, every n-th."""
        worker = get_worker_info()
        first, stride = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        per_block = max(1, _SYMBOLS_PER_BLOCK // (self.layout.num_lanes * self.layout.num_steps))
        for begin in count(first, stride * per_block):
            end = begin + stride * per_block
            if self.num_chunks is not None:
                end = min(end, self.num_chunks)
            index = np.arange(begin, end, stride)
            if not len(index):
                return
            for chunk in self._make(index):
                # A view sent to another process takes the whole block along; a copy goes alone.
                yield chunk if worker is None else _copy(chunk)

    def loader(self, *, num_workers: int = 0) -> DataLoader[Chunk]:
        """A DataLoader that hands the chunks on as they are, in order.

        Args:
            num_workers: Processes that make chunks ahead of time; 0 makes them in this one, which is as quick at
                the tutorial's sizes.
        """
        # A generator of its own: otherwise every pass would draw its base seed from the global random state.
        return DataLoader(
            self,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            generator=torch.Generator(),
            worker_init_fn=_begin_worker,
        )

    def _make(self, index: Integers) -> Iterator[Chunk]:
        places = _shard(self.layout.places(index), self.rank, self.num_ranks)
        sequence = places.sequence[:, :, None]
        symbols = self.source(sequence, places.step)
        targets = self.source(sequence, places.answer)
        # A source without end has a symbol at every step; where one has ended, nothing is asked any more.
        targets[(places.answer == NO_STEP) | (targets < 0) | (symbols < 0)] = NOT_ASKED
        if self.is_missing is not None:
            symbols[self.is_missing(sequence, places.step)] = -1
        fields = (symbols, targets, places.starts, places.sequence, places.step)
        # unbind makes all views in one call; indexing would cost a call for each field of each chunk.
        columns = (torch.from_numpy(np.ascontiguousarray(field)).unbind(0) for field in fields)
        return map(Chunk._make, zip(*columns, index.tolist(), strict=True))


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


def _copy(chunk: Chunk) -> Chunk:
    return Chunk._make(field.clone() if isinstance(field, Tensor) else field for field in chunk)


def _begin_worker(worker: int) -> None:
    # Ctrl-C and a service manager's SIGTERM reach all processes, and the one that trains needs these to end its update.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored: SIGTERM is also how that one ends a worker when it is done, and it waits for it.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_AFTER_SIGTERM))
    # Errors of the dataset go to the one that trains; here only those of a thread that hands chunks on would be shown.
    sys.excepthook = _show_unless_left


def _show_unless_left(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, (EOFError, ConnectionError)):  # the one that trains has ended in the middle of a chunk
        sys.__excepthook__(kind, error, traceback)


def _as_it_is(chunk: Any) -> Any:
    return chunk
