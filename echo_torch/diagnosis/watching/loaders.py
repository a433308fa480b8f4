"""Batches that come from other processes: the same rows are read once more in this one, where places are followed."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import DisableTorchFunction
from torch.utils.data import IterableDataset
from torch.utils.data._utils.fetch import _MapDatasetFetcher
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from echo_torch.diagnosis.stamps import Stamps, placed_chunk
from echo_torch.diagnosis.watching.made import MadeSamples
from echo_torch.diagnosis.watching.padding import Padding
from echo_torch.diagnosis.watching.places import Places
from echo_torch.randomness import random_state_kept

NoteBatch = Callable[[int, int | None, bool], bool]  # as `Calls.note_batch`

_MOST_BYTES = 256 * 2**20  # of a dataset that is copied
_MOST_OBJECTS = 100_000
_MOST_SECONDS = 1.0  # for reading batches once more: so many at once, ...
_SECONDS_A_BATCH = 0.05  # ... and so many for each


class Loaders:
    """Looks at the batches of every loader while it is open.

    A loader with workers hands out tensors that come from nowhere. Its rows are read again from a copy of its dataset,
    and what is equal to the byte stands where the copy says. What is random, too large, or too slow stays unknown.

    Args:
        places: Where values stand.
        padding: Told of each batch.
        note_batch: Told of each batch before it comes.
        place: Told where the rows of a batch stand that says so itself, as this project's `Chunk`.
    """

    def __init__(
        self, places: Places, padding: Padding, note_batch: NoteBatch, place: Callable[[Tensor, Stamps], None]
    ) -> None:
        self._places = places
        self._padding = padding
        self._note_batch = note_batch
        self._place = place
        # Datasets by their ids, kept alive so that no other gets one, and whether their latest batch was watched.
        self._latest: dict[int, tuple[Any, bool]] = {}
        self._indices: weakref.WeakKeyDictionary[Any, deque[Any]] = weakref.WeakKeyDictionary()
        self._shadows: dict[int, _Shadow] = {}  # by the ids of datasets
        self._made: dict[tuple[int, int], MadeSamples] = {}  # by the ids of datasets, and of what makes batches
        self._undo: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Look at batches from now on."""
        self._wrap(_BaseDataLoaderIter, "__next__", self._next)
        self._wrap(_MultiProcessingDataLoaderIter, "_next_index", self._next_index)
        self._wrap(_MultiProcessingDataLoaderIter, "_reset", self._reset)
        self._wrap(_MultiProcessingDataLoaderIter, "__init__", self._start)

    def end(self) -> None:
        """Leave the loaders as they were."""
        while self._undo:
            self._undo.pop()()
        self._indices.clear()
        self._shadows.clear()
        self._made.clear()
        self._latest.clear()

    def _wrap(self, owner: type, name: str, around: Callable[..., Any]) -> None:
        is_own, before = name in vars(owner), getattr(owner, name)

        def wrapped(iterator: Any, *args: Any, **kwargs: Any) -> Any:
            return around(before, iterator, *args, **kwargs)

        setattr(owner, name, wrapped)
        self._undo.append(lambda: setattr(owner, name, before) if is_own else delattr(owner, name))

    def _start(self, before: Callable[..., Any], iterator: Any, *args: Any, **kwargs: Any) -> None:
        """Workers begin as copies of this process, and follow nothing."""
        was_paused, self._places.is_paused = self._places.is_paused, True
        try:
            before(iterator, *args, **kwargs)
        finally:
            self._places.is_paused = was_paused

    def _reset(self, before: Callable[..., Any], iterator: Any, *args: Any, **kwargs: Any) -> None:
        self._indices[iterator] = deque()
        before(iterator, *args, **kwargs)

    def _next_index(self, before: Callable[..., Any], iterator: Any) -> Any:
        index = before(iterator)
        if iterator in self._indices:
            self._indices[iterator].append(index)
        return index

    def _next(self, before: Callable[..., Any], iterator: Any) -> Any:
        with contextlib.suppress(Exception):
            self._note_number(iterator)
        made = None
        if not self._places.is_paused:
            self._note_dataset(iterator._dataset)
            made = self._made_by(iterator)
        begin = self._places.arrays.number
        is_known = made is not None and made.is_known
        batch = self._rested(before, iterator) if is_known else before(iterator)
        indices = self._indices.get(iterator)
        index = indices.popleft() if indices else None
        if not self._places.is_paused:
            with contextlib.suppress(Exception):  # whatever somebody's dataset does: then nothing is known of it
                if index is not None and getattr(iterator, "_in_order", True) and not is_known:
                    self._follow(iterator, index, batch)
                with DisableTorchFunction():
                    if made is not None:
                        (made.stand if is_known else made.look)(batch, begin)
                    self._padding.note_batch(batch)
                    found = placed_chunk(batch)
                if found is not None and isinstance(found[0], Tensor):
                    self._place(*found)
        return batch

    def _rested(self, before: Callable[..., Any], iterator: Any) -> Any:
        """A batch of which it is not followed how it is made."""
        self._places.rest()
        try:
            return before(iterator)
        finally:
            self._places.go_on()

    def _made_by(self, iterator: Any) -> MadeSamples:
        """What is known of how its batches are made."""
        collate = getattr(iterator, "_collate_fn", None)
        key = id(iterator._dataset), id(collate)
        if key not in self._made:
            self._made[key] = MadeSamples(self._places, collate)
        return self._made[key]

    def _note_number(self, iterator: Any) -> None:
        number, sampler, dataset = iterator._num_yielded, iterator._index_sampler, iterator._dataset
        _, was_watched = self._latest.get(id(dataset), (None, False))
        is_watched = self._note_batch(number, len(sampler) if isinstance(sampler, Sized) else None, was_watched)
        self._latest[id(dataset)] = dataset, is_watched

    def _note_dataset(self, dataset: Any) -> None:
        """Its arrays of numpy have places, and its copies too."""
        if id(dataset) not in self._shadows:
            self._shadows[id(dataset)] = _Shadow(dataset, self._places)

    def _follow(self, iterator: Any, index: Any, batch: Any) -> None:
        self._places.has_unread, had_unread = True, self._places.has_unread  # unless all goes well
        dataset = iterator._dataset
        again = None if isinstance(dataset, IterableDataset) else self._shadows[id(dataset)].fetch(iterator, index)
        with DisableTorchFunction():
            for received, found in _pairs(batch, again):
                places = self._places.where(found) if _is_same(received, found) else None
                if places is not None:
                    self._places.keep(received, places)
                    self._places.has_unread = had_unread


class _Shadow:
    """A copy of a dataset that is read beside it, so that the dataset stays as it is."""

    def __init__(self, dataset: Any, places: Places) -> None:
        self._original = dataset  # kept alive, so that no other gets its id
        self._copy: Any = None
        self._seconds = 0.0  # that reading has taken beyond what each batch may take
        self._places = places
        parts = _parts_of(dataset)
        self._note_arrays(parts)
        self._is_given_up = parts is None

    def _note_arrays(self, parts: Iterable[Any] | None) -> None:
        for part in parts or ():
            if isinstance(part, np.ndarray):
                self._places.arrays.note_numpy(part)

    def fetch(self, iterator: Any, index: Any) -> Any:
        """The same rows, collated in the same way; None where that cannot be had."""
        if self._is_given_up:
            return None
        self._is_given_up = True  # unless all goes well
        silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with random_state_kept(), silent[0], silent[1]:
            if self._copy is None:
                self._copy = copy.deepcopy(self._original)
                self._note_arrays(_parts_of(self._copy))
            start = time.perf_counter()
            fetcher = _MapDatasetFetcher(
                self._copy, iterator._auto_collation, copy.deepcopy(iterator._collate_fn), iterator._drop_last
            )
            found = fetcher.fetch(index)  # type: ignore[no-untyped-call]
        self._seconds += time.perf_counter() - start - _SECONDS_A_BATCH
        self._is_given_up = self._seconds > _MOST_SECONDS
        return found


def _pairs(received: Any, found: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors at the same places of two batches of the same form."""
    if isinstance(received, Tensor) and isinstance(found, Tensor):
        yield received, found
    elif isinstance(received, dict) and isinstance(found, dict):
        for name in received.keys() & found.keys():
            yield from _pairs(received[name], found[name])
    elif isinstance(received, (tuple, list)) and isinstance(found, (tuple, list)):
        for one, other in zip(received, found, strict=False):
            yield from _pairs(one, other)


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all())


def _parts_of(whole: Any) -> list[Any] | None:
    """All that a dataset holds; None if that is too much to be copied at little cost."""
    size, ahead, found = 0, [whole], {}
    while ahead:
        part = ahead.pop()
        if id(part) in found:
            continue
        found[id(part)] = part
        size += _size_of(part)
        if size > _MOST_BYTES or len(found) > _MOST_OBJECTS:
            return None
        if isinstance(part, dict):
            ahead += part.values()
        elif isinstance(part, (list, tuple, set)):
            ahead += (one for one in part if not isinstance(one, (int, float, str)))
        elif not isinstance(part, (type, Tensor, np.ndarray)):
            ahead += getattr(part, "__dict__", {}).values()
    return list(found.values())


def _size_of(part: Any) -> int:
    """Bytes of an object without what it holds."""
    return part.nbytes if isinstance(part, (Tensor, np.ndarray)) else sys.getsizeof(part)
