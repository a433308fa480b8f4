"""Samples that a dataset makes when it is asked, each in memory of its own that is gone with it.

Images that are decoded, or rows that are lists, lead back to no array that another batch has parts of. Once some
batches were so, it is not followed any more how the next ones are made: each row has an array of its own all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.regular import as_regular, regular

_ENOUGH = 5  # batches of which each row had an array of its own
_EVERY = 16  # batches one is followed all the same: is all as it was?
_UNLIKELY = 3  # batches one after the other that were made otherwise: no more are looked at

_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, np.ndarray)  # parts of a batch without tensors

# Of each tensor of a batch, in their order: the positions of a row's values in its array, of a sample's shape, without
# memory where they are regular; None of a tensor that tells itself where it stands.
_Form = list[Tensor | None]


class MadeSamples:
    """Tells whether a dataset makes its samples, from batches that were followed, and stands for following later ones.

    Args:
        places: Where values stand.
        collate: The function that makes batches of samples, kept alive so that no other gets its id.
    """

    def __init__(self, places: Places, collate: Any) -> None:
        self._places = places
        self._collate = collate
        self._form: _Form | None = None
        self._number = 0  # batches that were alike
        self._number_unlike = 0  # that were not made so
        self._number_unfollowed = 0  # since the last one that was

    @property
    def is_known(self) -> bool:
        """Whether the next batch need not be followed: so many before it were alike."""
        return self._number >= _ENOUGH and self._number_unfollowed < _EVERY - 1

    def look(self, batch: Any, begin: int) -> None:
        """A batch was followed.

        Args:
            batch: What the loader gives.
            begin: How many arrays there were before it was made.
        """
        self._number_unfollowed = 0
        if self._number_unlike >= _UNLIKELY:
            return
        form: _Form = []
        for part in leaves_of(batch):
            form.append(self._form_of(part, begin) if _has_places(part) else _UNLIKE)
            if form[-1] is _UNLIKE:
                break
        is_made = bool(form) and form[-1] is not _UNLIKE
        is_alike = self._form is not None and _are_alike(form, self._form)
        self._number = 0 if not is_made else self._number + 1 if is_alike else 1
        self._number_unlike = 0 if is_made else self._number_unlike + 1
        self._form = form if is_made else None

    def stand(self, batch: Any, begin: int) -> None:
        """A batch was not followed: its rows have arrays of their own, if it has the form of those before."""
        self._number_unfollowed += 1
        parts, form = list(leaves_of(batch)), self._form or []
        fits = [self._fits(*each, begin) for each in zip(parts, form, strict=False)]
        is_alike = len(parts) == len(form) and all(fits)
        self._number *= is_alike
        for tensor, positions in zip(parts, form if is_alike else [_UNLIKE] * len(parts), strict=True):
            if positions is _UNLIKE and isinstance(tensor, Tensor):
                self._places.keep_unknown(tensor)
            elif positions is not None and isinstance(tensor, Tensor):
                first = self._places.arrays.gone(len(tensor)) * ARRAY
                self._places.keep(tensor, _in_arrays(positions, len(tensor), first))

    def _form_of(self, tensor: Tensor, begin: int) -> Tensor | None:
        if self._places.tells_itself(tensor):
            return None if self._places.arrays.is_new(tensor, begin) else _UNLIKE
        found = self._places.where(tensor)
        if found is None or found.is_meta or not found.numel() or not found.ndim:
            return _UNLIKE
        arrays = found.numpy() // ARRAY
        numbers = arrays[(slice(None),) + (0,) * (arrays.ndim - 1)]
        if numbers.min() <= begin or any(map(self._places.arrays.is_alive, numbers.tolist())):
            return _UNLIKE
        positions = found.numpy() % ARRAY
        is_own = (arrays.reshape(len(arrays), -1) == numbers[:, None]).all() and (positions == positions[0]).all()
        if not is_own:
            return _UNLIKE
        one = torch.from_numpy(np.array(positions[0]))
        return one if (found := as_regular(one)) is None else found

    def _fits(self, tensor: Any, positions: Tensor | None, begin: int) -> bool:
        if not _has_places(tensor):
            return False
        if positions is None:
            return self._places.arrays.is_new(tensor, begin)
        return bool(tensor.ndim) and tuple(tensor.shape[1:]) == positions.shape


_UNLIKE = torch.from_numpy(np.empty(0, np.int64))  # of a tensor whose rows have no arrays of their own


def _in_arrays(positions: Tensor, num_rows: int, first: int) -> Tensor:
    """The places of rows that have arrays one after the other, the first of which begins at a place."""
    if positions.is_meta:
        strides = ARRAY, *positions.stride()
        return regular((num_rows, *positions.shape), strides, first + int(positions.storage_offset()))
    rows = torch.arange(first, first + num_rows * ARRAY, ARRAY)
    return rows.view(-1, *[1] * positions.ndim) + positions


def leaves_of(batch: Any) -> Iterator[Any]:
    """The tensors in a batch, in their order, and whatever else might hold some."""
    if isinstance(batch, (Mapping, tuple, list)):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from leaves_of(part)
    elif not isinstance(batch, _PLAIN):
        yield batch


def _has_places(part: Any) -> bool:
    """Whether a part of a batch is a tensor that has a storage: a sparse one has none that could be asked."""
    return isinstance(part, Tensor) and part.layout is torch.strided


def _are_alike(form: _Form, other: _Form) -> bool:
    return len(form) == len(other) and all(map(_is_same, form, other))


def _is_same(positions: Tensor | None, others: Tensor | None) -> bool:
    if positions is None or others is None or positions.is_meta is not others.is_meta:
        return positions is others
    if not positions.is_meta:
        return torch.equal(positions, others)
    form, other = ((each.shape, each.stride(), each.storage_offset()) for each in (positions, others))
    return form == other
