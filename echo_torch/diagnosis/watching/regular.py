"""Places in even strides, of which no array is made: a tensor without memory has their shape, strides and first place.

Whatever gives a view of a tensor gives one of its places too, and what a row reads is told by its strides alone. Only
where values are copied, or compared, are the places written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

_NOWHERE = torch.empty(0, dtype=torch.int64, device="meta")
# Numpy's: torch would begin threads while it is imported, and a process that is forked afterwards would wait for them.
_COUNTED = torch.from_numpy(np.arange(2**16))
_STORAGE = _NOWHERE.untyped_storage()._cdata


class Later:
    """Places that are found when somebody asks for them, once.

    Args:
        find: Gives them.
    """

    __slots__ = ("_find", "_places")

    def __init__(self, find: Callable[[], Tensor]) -> None:
        self._find = find
        self._places: Tensor | None = None

    def __call__(self) -> Tensor:
        """The places."""
        if self._places is None:
            self._places = self._find()
        return self._places


def regular(shape: Sequence[int], strides: Sequence[int], first: int) -> Tensor:
    """Places without memory.

    >>> written_out(regular((2, 3), (10, 1), 5)).tolist()
    [[5, 6, 7], [15, 16, 17]]

    Args:
        shape: Of the places.
        strides: From one place to the next along each axis.
        first: The first place.
    """
    return _NOWHERE.as_strided(shape, strides, first)


def is_regular(places: Tensor) -> bool:
    """Whether places are without memory, or a view of such; a copy of such holds nothing."""
    return places.is_meta and places.untyped_storage()._cdata == _STORAGE


def written_out(places: Tensor) -> Tensor:
    """The places as int64; where all along an axis are the same, only one of them is in memory."""
    if not places.is_meta:
        return places
    shape, strides = places.shape, places.stride()
    if len(shape) == 1 and strides[0]:
        first = int(places.storage_offset())
        return torch.arange(first, first + shape[0] * strides[0], strides[0])
    kept = [min(size, 1) if not stride else size for size, stride in zip(shape, strides, strict=True)]
    extent = sum((size - 1) * stride for size, stride in zip(kept, strides, strict=True))
    if extent < len(_COUNTED):
        found = _COUNTED.as_strided(kept, strides).add(places.storage_offset())
    else:
        found = _added(kept, strides, int(places.storage_offset()))
    return found if 0 not in strides else found.expand(shape)


def _added(shape: Sequence[int], strides: Sequence[int], first: int) -> Tensor:
    """Regular places axis by axis, however far apart they are."""
    found = torch.full([1] * len(shape), first)
    for axis in range(len(shape) - 1, -1, -1):
        moves = torch.arange(shape[axis]) * strides[axis]
        found = found + moves.view(-1, *[1] * (len(shape) - 1 - axis))
    return found


def as_regular(places: Tensor) -> Tensor | None:
    """The same places without memory; None where no even strides lead to all of them.

    >>> as_regular(torch.tensor([[5, 6, 7], [15, 16, 17]])).stride()
    (10, 1)
    >>> as_regular(torch.tensor([5, 6, 9]))
    """
    if not places.numel():
        return None
    first = first_of(places)
    second = (places.select(axis, min(1, size - 1)) for axis, size in enumerate(places.shape))
    strides = [first_of(part) - first or 1 for part in second]
    if min(strides, default=1) < 0:
        return None  # no tensor has such
    found = regular(places.shape, strides, first)
    return found if torch.equal(written_out(found), places) else None


def first_of(places: Tensor) -> int:
    """The first place, of places with memory or without."""
    return int(places.storage_offset()) if places.is_meta else int(places[(0,) * places.ndim])


def are_of_one_form(places: Sequence[Tensor]) -> bool:
    """Whether all places are regular, of one shape and in the same strides."""
    form = places[0].shape, places[0].stride()
    return all(part.is_meta and (part.shape, part.stride()) == form for part in places)


def joined(places: Sequence[Tensor], axis: int) -> Tensor:
    """Places of one form as `torch.cat` puts the values, written out.

    >>> joined([regular((2, 1), (3, 1), 5), regular((2, 1), (3, 1), 9)], 1).tolist()
    [[5, 9], [8, 12]]

    Args:
        places: Of each part, as of `are_of_one_form`, with at least one axis.
        axis: Along which they are joined.
    """
    axis %= places[0].ndim
    return stacked(places, axis).flatten(axis, axis + 1)


def padded(
    first: Sequence[int],
    sizes: Sequence[int],
    inner: Sequence[int],
    strides: Sequence[int],
    fill: int,
    *,
    is_batch_first: bool,
    is_left: bool,
) -> Tensor:
    """Regular places of sequences as `pad_sequence` puts the values, written out.

    >>> padded([5, 9], [3, 1], (), (1,), 0, is_batch_first=True, is_left=False).tolist()
    [[5, 6, 7], [9, 0, 0]]

    Args:
        first: Of each sequence the first place.
        sizes: How many steps each has.
        inner: The shape of each step.
        strides: From one place to the next along the axis of the steps, and along those of a step.
        fill: What stands in front of a sequence, or behind it.
        is_batch_first: Whether the first axis of the result counts sequences, and the second one steps.
        is_left: Whether the shorter ones are filled in front.
    """
    begins, lengths = np.array(first)[:, None], np.array(sizes)[:, None]
    longest = max(sizes)
    steps = np.arange(longest) - (longest - lengths if is_left else 0)
    is_real = (steps >= 0) & (steps < lengths)
    found = torch.from_numpy(np.where(is_real, begins + steps * strides[0], fill))
    if inner:
        found = found.view(*found.shape, *[1] * len(inner)) + written_out(regular(inner, strides[1:], 0))
        found[torch.from_numpy(~is_real)] = fill
    return found if is_batch_first else found.transpose(0, 1)


def stacked(places: Sequence[Tensor], axis: int) -> Tensor:
    """Regular places as `torch.stack` puts the values, written out; those of one form by one addition.

    >>> stacked([regular((3,), (1,), 5), regular((3,), (1,), 9)], 1).tolist()
    [[5, 9], [6, 10], [7, 11]]

    Args:
        places: Of each part.
        axis: Along which they are stacked.
    """
    if not are_of_one_form(places):
        return torch.stack(list(map(written_out, places)), axis)
    shape, strides = places[0].shape, places[0].stride()
    axis %= len(shape) + 1
    first = torch.tensor([part.storage_offset() for part in places])
    return written_out(regular(shape, strides, 0)).unsqueeze(axis) + first.view(-1, *[1] * (len(shape) - axis))
