"""A loader run over positions instead of data: then each batch says itself where its rows stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.data_path.reaching import Reach, reach
from echo_torch.diagnosis.stamps import Stamps, as_array, whole_number
from echo_torch.errors import RuleError, shorten
from echo_torch.randomness import random_state_kept

_FIRST = 2**20  # counted from here, no position is mistaken for a mask, a length, a label or padding
_LARGEST_WHOLE_FLOAT32 = 2**24


def reach_of(
    make_loader: Callable[[Any], Iterable[Any]],
    length: int | Iterable[int],
    lag: int | None = None,
    *,
    stamps: Callable[[Any], Stamps] | None = None,
    answers: Callable[[Any], Any] | None = None,
    time_major: bool = False,
    **options: Any,
) -> Reach:
    """What the rows of one's own loader read: run it over positions instead of the data, and follow them.

    >>> def make_loader(series):  # as one has it, but for the data
    ...     windows = torch.utils.data.TensorDataset(series.unfold(0, 10, 10))
    ...     return torch.utils.data.DataLoader(windows, batch_size=4)
    >>> found = reach_of(make_loader, length=400)
    >>> found.gap, found.faults
    (30, ('rows-skip',))

    Args:
        make_loader: A tensor of whole numbers, int64 (length,), or a list of such -> the loader over it. It is called
            once. Where the loader needs numpy: `lambda series: make_loader(series.numpy())`.
        length: Steps of the series, or of each of several: then `make_loader` gets a list of tensors.
        lag: As of `reach`.
        stamps: Batch -> `Stamps`, where a batch needs more than to be read as it is. Then the numbers are those of
            `torch.arange(length)`, several series one after another. None: the numbers are those from 2 ** 20 on, so
            that masks, lengths and labels are no positions; the first field of the batch that holds some of them is
            taken, (lanes, steps), and whatever else stands in it is padding. A loader that looks its numbers up in a
            table needs `stamps`.
        answers: Batch -> those positions that its targets ask for, (lanes, steps), or (lanes,) at the row's last step.
            For an echo they are the targets that the loader makes of positions.
        time_major: Whether the fields of a batch are (steps, lanes).
        options: As of `reach`.

    Returns:
        As of `reach`. The global random states are afterwards as they were, whatever `make_loader` draws.

    Raises:
        RuleError: If the loader hands out something else than positions, or as of `reach`.
    """
    lengths, is_several = _checked_lengths(length)
    if not callable(make_loader):
        way_out = "hand over a function: lambda series: DataLoader(MyDataset(series), batch_size=4)"
        rule = "$make_loader must be a function that makes the loader of an array"
        raise RuleError("make_loader", rule, type(make_loader).__name__, way_out=way_out)
    numbers = torch.arange(sum(lengths)) + (_FIRST if stamps is None else 0)
    read = _Positions(lengths, answers, time_major=time_major).stamps if stamps is None else stamps
    with random_state_kept():
        loader = make_loader(list(torch.split(numbers, lengths)) if is_several else numbers)
        if not isinstance(loader, Iterable):
            rule = "$make_loader must return the loader, batches that can be iterated"
            raise RuleError(
                "make_loader", rule, type(loader).__name__, way_out="return DataLoader(dataset, ...) from it"
            )
        return reach(loader, lag, stamps=read, **options)


def _checked_lengths(length: Any) -> tuple[list[int], bool]:
    """The lengths of all series, and whether they are given as several."""
    one = whole_number(length)
    several = list(length) if one is None and isinstance(length, Iterable) else None
    lengths = [one] if several is None else [whole_number(each) for each in several]
    found = [each for each in lengths if each is not None and each >= 1]
    if not found or len(found) < len(lengths):
        rule = "$length must be a whole number of at least 1, or one for each of several series"
        raise RuleError("length", rule, shorten(repr(length if several is None else several)))
    return found, several is not None


class _Positions:
    """Batches of positions, counted from `_FIRST`, as stamps."""

    def __init__(self, lengths: Sequence[int], answers: Callable[[Any], Any] | None, *, time_major: bool) -> None:
        self._ends = np.cumsum(lengths)
        self._begins = self._ends - np.asarray(lengths)
        self._answers, self._time_major = answers, time_major
        self._field: int | None = None  # the place in the batch of the field that is taken

    def stamps(self, batch: Any) -> Stamps:
        """Where the rows of a batch stand."""
        place = self._place(batch)
        which = np.searchsorted(self._ends, np.maximum(place, 0), side="right")
        step = np.where(place >= 0, place - self._begins[which], -1)
        stamps = Stamps(step, which)
        return stamps if self._answers is None else self._with_answers(stamps, self._answers(batch))

    def _place(self, batch: Any) -> Integers:
        """The positions of a batch, (lanes, steps), all series one after another; -1 where there is none."""
        padding = None
        for number, field in enumerate(_fields(batch, time_major=self._time_major)):
            place = self._places(field)
            if place is not None and (place >= 0).any():
                self._field = number
                return place
            if number == self._field:  # a batch may hold nothing but padding
                padding = place
        if padding is not None:
            return padding
        raise RuleError(
            "make_loader",
            "$make_loader must make a loader that hands out the numbers of its array as they are, one field of "
            "them (lanes, steps)",
            _in_words(batch),
            reason="because they say where each row stands",
            way_out="say with $stamps where each row stands: "
            "reach_of(make_loader, length, stamps=lambda batch: Stamps(step=...)); the numbers then begin at 0",
        )

    def _places(self, field: Any) -> Integers | None:
        """A field as positions (lanes, steps), -1 where there is none; None if it cannot be such."""
        array = as_array(field)
        if array.dtype.kind == "f":
            # Those of half precision know no number that is so large.
            if array.dtype.itemsize < 4 or not np.isfinite(array).all() or (array != np.round(array)).any():
                return None
            if array.size and np.abs(array).max() >= _LARGEST_WHOLE_FLOAT32:
                return None
            array = array.astype(np.int64)
        if array.dtype.kind not in "iu" or not 1 <= array.ndim <= 3 or (array.ndim == 3 and array.shape[2] != 1):
            return None
        array = array[:, None] if array.ndim == 1 else array.reshape(array.shape[:2])
        place = array.astype(np.int64) - _FIRST
        place = np.where((place >= 0) & (place < self._ends[-1]), place, -1)
        return place.T if self._time_major else place

    def _with_answers(self, stamps: Stamps, field: Any) -> Stamps:
        place, step = self._places(field), np.asarray(stamps.step)
        if place is not None and np.ndim(field) == 1 and len(field) == len(step):
            # Asked at the last step that the row reads.
            last = step.shape[1] - 1 - (step >= 0)[:, ::-1].argmax(axis=1)
            place = np.where(np.arange(step.shape[1]) == last[:, None], place.reshape(-1, 1), -1)
        elif place is None or place.shape != step.shape:
            rule = f"$answers must return positions, (lanes, steps) = {step.shape} or (lanes,) = {step.shape[:1]}"
            raise RuleError("answers", rule, _in_words(field))
        sequence = np.asarray(stamps.sequence)
        is_inside = (place >= self._begins[sequence]) & (place < self._ends[sequence])
        answers = np.where(is_inside, place - self._begins[sequence], -1)
        return stamps._replace(answers=answers, is_asked=place >= 0)


def _fields(batch: Any, *, time_major: bool = False) -> Iterator[Any]:
    """The tensors and arrays of a batch, in their order; what is packed is padded."""
    if isinstance(batch, PackedSequence):
        yield pad_packed_sequence(batch, batch_first=not time_major)[0]
    elif isinstance(batch, (Tensor, np.ndarray)):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _fields(part, time_major=time_major)
    elif isinstance(batch, (tuple, list)):
        for part in batch:
            yield from _fields(part, time_major=time_major)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from _fields(getattr(batch, field.name, None), time_major=time_major)


def _in_words(batch: Any) -> str:
    fields = [f"{_kind(field)} {tuple(field.shape)}" for field in _fields(batch)]
    return f"{type(batch).__name__} of {', '.join(fields)}" if fields else type(batch).__name__


def _kind(field: Tensor | NDArray[Any]) -> str:
    return str(field.dtype).removeprefix("torch.")
