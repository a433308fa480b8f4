"""A loader run over positions instead of data: then each batch says itself where its rows stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.data_path.reaching import Reach, reach
from echo_torch.diagnosis.stamps import Stamps, as_array
from echo_torch.errors import RuleError

_LARGEST_WHOLE_FLOAT32 = 2**24


def reach_of(
    make_loader: Callable[[Any], Iterable[Any]],
    length: int | Sequence[int],
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
        make_loader: An array of whole numbers, or a list of arrays -> the loader over it. It is called once.
        length: Steps of the series, or of each of several: then `make_loader` gets a list of arrays.
        lag: As of `reach`.
        stamps: Batch -> `Stamps`, where a batch needs more than to be read as it is. Then the numbers are those of
            `torch.arange(length)`, several series one after another. None: the first field of the batch that holds
            positions is taken, (lanes, steps), and zeros in it are padding.
        answers: Batch -> those positions that its targets ask for, (lanes, steps), or (lanes,) at the row's last step.
            For an echo they are the targets that the loader makes of positions.
        time_major: Whether the fields of a batch are (steps, lanes).
        options: As of `reach`.

    Returns:
        As of `reach`.

    Raises:
        RuleError: If the loader hands out something else than positions, or as of `reach`.
    """
    lengths = [length] if isinstance(length, int) else list(length)
    if not lengths or min(lengths) < 1:
        raise RuleError("length", "$length must be at least 1, for each series", length)
    if not callable(make_loader):
        way_out = "hand over a function: lambda series: DataLoader(MyDataset(series), batch_size=4)"
        rule = "$make_loader must be a function that makes the loader of an array"
        raise RuleError("make_loader", rule, type(make_loader).__name__, way_out=way_out)
    # Counted from 1 where they are read here, so that the zeros of padding are no position.
    numbers = torch.arange(sum(lengths)) + (stamps is None)
    series = list(torch.split(numbers, lengths))
    loader = make_loader(numbers if isinstance(length, int) else series)
    read = _Positions(lengths, answers, time_major=time_major).stamps if stamps is None else stamps
    return reach(loader, lag, stamps=read, **options)


class _Positions:
    """Batches of positions, counted from 1, as stamps."""

    def __init__(self, lengths: Sequence[int], answers: Callable[[Any], Any] | None, *, time_major: bool) -> None:
        self._ends = np.cumsum(lengths)
        self._begins = self._ends - np.asarray(lengths)
        self._answers, self._time_major = answers, time_major

    def stamps(self, batch: Any) -> Stamps:
        """Where the rows of a batch stand."""
        numbers = next((found for field in _fields(batch) if (found := self._numbers(field)) is not None), None)
        if numbers is None:
            raise RuleError(
                "make_loader",
                "$make_loader must make a loader that hands out the numbers of its array as they are, one field of "
                "them (lanes, steps)",
                _in_words(batch),
                reason="because they say where each row stands",
                way_out="say with $stamps where each row stands: "
                "reach_of(make_loader, length, stamps=lambda batch: Stamps(step=...))",
            )
        place = numbers - 1
        which = np.searchsorted(self._ends, np.maximum(place, 0), side="right")
        step = np.where(place >= 0, place - self._begins[which], -1)
        stamps = Stamps(step, which)
        return stamps if self._answers is None else self._with_answers(stamps, self._answers(batch))

    def _numbers(self, field: Any) -> Integers | None:
        """A field as positions (lanes, steps), 0 where there is none; None if it is something else."""
        array = as_array(field)
        if array.dtype.kind == "f" and array.size and (array == np.round(array)).all():
            array = array.astype(np.int64) if np.abs(array).max() < _LARGEST_WHOLE_FLOAT32 else array
        if array.dtype.kind not in "iu" or not 1 <= array.ndim <= 3 or (array.ndim == 3 and array.shape[2] != 1):
            return None
        array = array[:, None] if array.ndim == 1 else array.reshape(array.shape[:2])
        if array.size and array.max() > self._ends[-1]:
            return None
        positions: Integers = np.maximum(array, 0).astype(np.int64)
        return positions.T if self._time_major else positions

    def _with_answers(self, stamps: Stamps, field: Any) -> Stamps:
        numbers, step = self._numbers(field), np.asarray(stamps.step)
        if numbers is not None and np.ndim(field) == 1 and len(field) == len(step):
            # Asked at the last step that the row reads.
            last = step.shape[1] - 1 - (step >= 0)[:, ::-1].argmax(axis=1)
            is_asked = np.arange(step.shape[1]) == last[:, None]
            numbers = np.where(is_asked, as_array(field)[:, None], 0)
            stamps = stamps._replace(is_asked=is_asked & (numbers > 0))
        elif numbers is not None and numbers.shape == step.shape:
            stamps = stamps._replace(is_asked=numbers > 0)
        else:
            rule = f"$answers must return positions, (lanes, steps) = {step.shape} or (lanes,) = {step.shape[:1]}"
            raise RuleError("answers", rule, _in_words(field))
        place = numbers - 1
        sequence = np.asarray(stamps.sequence)
        is_inside = (place >= self._begins[sequence]) & (place < self._ends[sequence])
        return stamps._replace(answers=np.where(is_inside, place - self._begins[sequence], -1))


def _fields(batch: Any) -> Iterator[Any]:
    """The tensors and arrays of a batch, in their order."""
    if isinstance(batch, (Tensor, np.ndarray)):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _fields(part)
    elif isinstance(batch, (tuple, list)):
        for part in batch:
            yield from _fields(part)


def _in_words(batch: Any) -> str:
    fields = [f"{_kind(field)} {tuple(field.shape)}" for field in _fields(batch)]
    return f"{type(batch).__name__} of {', '.join(fields)}" if fields else type(batch).__name__


def _kind(field: Tensor | NDArray[Any]) -> str:
    return str(field.dtype).removeprefix("torch.")
