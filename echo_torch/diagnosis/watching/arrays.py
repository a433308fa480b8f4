"""Arrays by number: the storages that tensors look into, those of numpy, and what a script has written into each."""

from __future__ import annotations

import bisect
import contextlib
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.continuity import Ends, ends_of
from echo_torch.diagnosis.watching.overlaps import Overlap, overlap_in
from echo_torch.diagnosis.watching.regular import regular, written_out

ARRAY = 2**40  # a place is the number of its array times this, and the position in it
FILLED = 0  # the place of what a function has filled in: it stands in no array
BLANK = 1  # the place of what is left of a constant into which a script has written rows
NOWHERE = 2  # the place of a feature of which it is unknown, beside others of which it is known
MOST_VALUES = 2**20  # of a tensor whose places are followed
_is_expired: Any = torch.UntypedStorage._expired


class Arrays:
    """Numbers arrays as they are met, and tells where a tensor stands in them.

    Attributes:
        copied: The numbers of arrays of which parts were written into others.
    """

    def __init__(self) -> None:
        self.copied: set[int] = set()
        self._numbers: dict[int, int] = {}  # by the addresses of their storages
        self._owners: list[Any] = []  # weak, by their numbers less one
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._of_numpy: dict[int, tuple[int, int, int]] = {}  # by address: its end, its size of a value, its number
        self._sequences: dict[int, int] = {}  # the numbers of arrays that stand for sequences, by the sequences
        self._starts: list[int] = []  # the same addresses, sorted
        self._overlaps: dict[int, Overlap | None] = {}  # as soon as somebody asks for places
        self._ends: dict[int, Ends | None] = {}  # likewise
        self._constants: set[int] = set()
        self._companions: set[int] = set()
        self._written: dict[int, Integers] = {}  # the place of each value of an array
        self._overwritten: dict[int, NDArray[np.bool_]] = {}  # whether a place was written to, and whether twice
        self._filled: dict[int, NDArray[np.bool_]] = {}  # whether something that is known of nowhere was written there
        self._blank: set[int] = set()  # arrays that were filled anew as a whole, as gradients are in each update

    def is_alive(self, array: int) -> bool:
        """Whether anybody still holds an array."""
        return array > 0 and not self._owners[array - 1].expired()

    @property
    def number(self) -> int:
        """How many arrays have been met: the last one has this number."""
        return len(self._owners)

    def gone(self, number: int) -> int:
        """The first of so many numbers of arrays that were gone before anybody met them."""
        self._owners += [_GONE] * number
        return len(self._owners) - number + 1

    def is_new(self, tensor: Tensor, before: int) -> bool:
        """Whether a tensor stands in memory of torch that is met for the first time after so many arrays."""
        number, _ = self._number(tensor)
        return number > before and not isinstance(self._owners[number - 1], _WeakArray)

    def of_sequence(self, sequence: int) -> int:
        """The number of the array that stands for a sequence that somebody has named."""
        if sequence not in self._sequences:
            self._owners.append(_Named())
            self._sequences[sequence] = len(self._owners)
        return self._sequences[sequence]

    def is_named(self, array: int) -> bool:
        """Whether an array stands for a sequence that somebody has named."""
        return array > 0 and isinstance(self._owners[array - 1], _Named)

    def axes_of(self, array: int) -> list[tuple[int, int]]:
        """Of each axis of an array its size and its stride, the outermost first; none if it was not seen whole."""
        axes, width = [], 1
        for size in reversed(self._shapes.get(array, ())):
            axes.append((size, width))
            width *= size
        return axes[::-1]

    def size_of(self, array: int) -> int:
        """How many values an array has; 0 if it was not seen whole."""
        return math.prod(self._shapes.get(array, (0,)))

    def overlaps(self, array: int) -> bool:
        """Whether the samples of an array are windows that overlap."""
        return self._overlaps.get(array) is not None

    def is_of_another_order(self, last: int, first: int) -> bool:
        """Whether the samples of an array go on as from one place to another, and are not consecutive.

        Args:
            last: Where a sample ends.
            first: Where another one of the array begins.
        """
        ends, shape = self._ends.get(last // ARRAY), self._shapes.get(last // ARRAY, ())
        if ends is None or len(shape) < 2:
            return False
        width = math.prod(shape[2:])
        (one, end), (other, begin) = (divmod(place % ARRAY, shape[1] * width) for place in (last, first))
        return end // width == shape[1] - 1 and begin < width and ends.go_on(other - one)

    def begin_of(self, tensor: Tensor) -> int | None:
        """The place of the first value by the storage, if the others follow in the tensor's own strides."""
        array, offset = self._number(tensor)
        if array in self._written or self._overlap_of(array, tensor) is not None:
            return None
        return array * ARRAY + offset + int(tensor.storage_offset())

    def places_of(self, tensor: Tensor) -> Tensor:
        """The place of each value by the storage, of the tensor's shape; or where a written value comes from."""
        array, offset = self._number(tensor)
        first, strides = int(tensor.storage_offset()) + offset, tensor.stride()
        overlap, written = self._overlap_of(array, tensor), self._written.get(array)
        if written is None:
            if overlap is None:
                return regular(tensor.shape, strides, array * ARRAY + first)
            if (found := overlap.regular(tensor.shape, strides, first, array * ARRAY)) is not None:
                return found
        positions = written_out(regular(tensor.shape, strides, first)).numpy()
        sources = self._own(array, positions) if written is None else self._sources(array, positions, written)
        return torch.from_numpy(np.asarray(sources))

    def note_parts(self, whole: Any) -> None:
        """Somebody takes parts of an array, in a form with more axes than that in which it was made."""
        if not isinstance(whole, Tensor) or whole.ndim < 3 or whole.requires_grad or whole.storage_offset():
            return
        if whole.is_contiguous() and whole.nbytes == whole.untyped_storage().nbytes():
            number, offset = self._number(whole)
            if offset == 0 and 0 < len(self._shapes.get(number, ())) < whole.ndim:
                self._shapes[number] = tuple(whole.shape)

    def note_constant(self, tensor: Tensor) -> None:
        """A function has made a tensor that holds one value everywhere."""
        if 1 < tensor.numel() <= MOST_VALUES and tensor.ndim > 1:
            self._constants.add(self._number(tensor)[0])

    def note_companion(self, tensor: Tensor) -> None:
        """A function has drawn random numbers that go with other values, and are no data."""
        self._companions.add(self._number(tensor)[0])

    @property
    def has_companions(self) -> bool:
        """Whether any array goes with other values."""
        return bool(self._companions)

    def is_companion(self, array: int) -> bool:
        """Whether an array goes with other values, as a dropout mask does."""
        return array in self._companions

    def note_numpy(self, array: np.ndarray[Any, Any]) -> _WeakArray:
        """Whatever torch makes of parts of this array, without a copy, stands in it."""
        array = _root_of(array)
        start = _address_of(array)
        if start in self._of_numpy and self.is_alive(number := self._of_numpy[start][2]):
            owner: _WeakArray = self._owners[number - 1]
            return owner
        self._forget_gone(start, start + array.nbytes)
        self._owners.append(owner := _WeakArray(array))
        number = len(self._owners)
        bisect.insort(self._starts, start)
        self._of_numpy[start] = start + array.nbytes, array.itemsize, number
        if array.flags.c_contiguous:
            self._shapes[number] = array.shape
        return owner

    def _forget_gone(self, start: int, end: int) -> None:
        """Arrays that were where another one is now."""
        begin, behind = bisect.bisect_left(self._starts, start), bisect.bisect_left(self._starts, end)
        gone = [each for each in self._starts[begin:behind] if not self.is_alive(self._of_numpy[each][2])]
        for each in gone:
            self._starts.remove(each)
            del self._of_numpy[each]

    def read_numpy(self, array: np.ndarray[Any, Any]) -> None:
        """The same of an array that is read now. One that was filled anew since it was read is another one."""
        owner = self.note_numpy(array)
        if not owner.holds_still(array):
            owner.let_go()
            again = self.note_numpy(array)
            again.is_refilled = again.holds_still(array)

    def places_in_numpy(self, array: np.ndarray[Any, Any]) -> Tensor | None:
        """The place of each value of an array, where torch can look into it."""
        if not array.size or array.size > MOST_VALUES:
            return None
        self.read_numpy(array)
        return self.places_of(torch.from_numpy(array))

    def write(self, view: Tensor, sources: Tensor | None, *, is_constant: bool = False) -> None:
        """A script has written into a part of an array.

        Args:
            view: The part.
            sources: The places of what it has written, of the view's shape or one that expands to it; None: unknown.
            is_constant: Whether it has written one value everywhere.
        """
        array, offset = self._number(view)
        size = view.untyped_storage().nbytes() // view.element_size()
        if size > MOST_VALUES:
            return
        if sources is None and array in self._blank:
            return
        self._blank.discard(array)
        positions = np.asarray(_positions(view) + offset)
        if sources is None:
            self._fill(array, positions, size, is_constant=is_constant)
        else:
            sources = written_out(sources)
            once, twice = self._overwritten.setdefault(array, np.zeros((2, size), dtype=bool))
            twice[positions] |= once[positions]
            once[positions] = True
            self._sources_in(array, size)[positions] = sources.expand(view.shape).numpy()
            self.copied |= set((sources // ARRAY).flatten().tolist())

    def fill_one(self, tensor: Tensor, index: int) -> None:
        """A script has written a number into a tensor (values); the same as `write`, but quick."""
        array, offset = self._number(tensor)
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        if size <= MOST_VALUES:
            position = offset + tensor.storage_offset() + index * tensor.stride(0)
            filled = self._filled.get(array)
            if filled is None or filled[position] or array in self._written:
                self._fill(array, np.asarray(position), size, is_constant=False)
            else:
                filled[position] = True

    def _fill(self, array: int, positions: Integers, size: int, *, is_constant: bool) -> None:
        """Data may be made so; what is written there once more is something else."""
        if array not in self._filled:
            self._filled[array] = np.zeros(size, dtype=bool)
        is_again = self._filled[array][positions] | is_constant
        self._filled[array][positions] = True
        if array in self._written or np.any(is_again):
            self._sources_in(array, size)[positions] = np.where(is_again, BLANK, self._own(array, positions))
            if positions.size == size and np.all(is_again):
                self._blank.add(array)

    def _sources_in(self, array: int, size: int) -> Integers:
        if array not in self._written:
            is_blank = array in self._constants
            self._written[array] = np.full(size, BLANK) if is_blank else self._own(array, np.arange(size))
        return self._written[array]

    def _sources(self, array: int, positions: Integers, written: Integers) -> Integers:
        """Where values come from, as far as those arrays are still there; else where they stand now.

        In a buffer that is written over and over they stand nowhere: what was read there before is something else.
        """
        sources = written[positions]
        numbers = sources // ARRAY
        gone = [number for number in set(numbers.ravel().tolist()) if number and not self.is_alive(number)]
        if not gone:
            return sources
        places = self._own(array, positions)
        if array in self._overwritten:
            places = np.where(self._overwritten[array][1][positions], BLANK, places)
        return np.where(np.isin(numbers, gone), places, sources)

    def _own(self, array: int, positions: Integers) -> Integers:
        """The places of values that come from no other array."""
        overlap = self._overlaps.get(array)
        return array * ARRAY + (positions if overlap is None else overlap.positions(positions))

    def _overlap_of(self, array: int, tensor: Tensor) -> Overlap | None:
        """How the samples of a tensor's array overlap; looked at once, before anybody knows a place in it."""
        if array not in self._overlaps:
            self._overlaps[array] = None
            if len(self._shapes.get(array, ())) > 1:  # else it holds no samples
                self._look_for_overlap(array, tensor)
        return self._overlaps[array]

    def _look_for_overlap(self, array: int, tensor: Tensor) -> None:
        owner = self._owners[array - 1]
        whole = owner.array() if isinstance(owner, _WeakArray) else _whole_of(tensor)
        if whole is None:
            return
        with contextlib.suppress(Exception):  # what has no values that can be looked at
            self._overlaps[array] = overlap_in(whole)
            self._ends[array] = ends_of(whole) if self._overlaps[array] is None else None
        if (overlap := self._overlaps[array]) is not None:
            self._shapes[array] = overlap.shape

    def _number(self, tensor: Tensor) -> tuple[int, int]:
        """The number of a tensor's array, and where in it its storage begins."""
        storage = tensor.untyped_storage()
        pointer = storage.data_ptr()
        if before := bisect.bisect(self._starts, pointer):
            start = self._starts[before - 1]
            end, size, number = self._of_numpy[start]
            if pointer < end and size == tensor.element_size() and self.is_alive(number):
                return number, (pointer - start) // size
        number = self._numbers.get(pointer, 0)
        if not self.is_alive(number):
            if number:
                self._constants.discard(number)
                self._companions.discard(number)
                self._written.pop(number, None)
                self._overwritten.pop(number, None)
                self._filled.pop(number, None)
            self._owners.append(_WeakStorage(storage))  # type: ignore[no-untyped-call]
            number = self._numbers[pointer] = len(self._owners)
        if number not in self._shapes:
            whole = _whole_of(tensor)
            if whole.is_contiguous() and whole.nbytes == storage.nbytes():
                self._shapes[number] = tuple(whole.shape)
        return number, 0


class _WeakStorage(StorageWeakRef):
    """A storage that may be gone; asked without a way through Python's part of torch, because it is asked often."""

    __slots__ = ()

    def expired(self) -> bool:
        """Whether it is gone."""
        return bool(_is_expired(self.cdata))


class _Named:
    """A sequence that somebody has named, as `StorageWeakRef` holds a storage."""

    def expired(self) -> bool:
        """Never."""
        return False


class _Gone:
    """An array that nobody has met, as `StorageWeakRef` holds a storage."""

    def expired(self) -> bool:
        """Always."""
        return True


_GONE = _Gone()


class _WeakArray:
    """An array of numpy, as `StorageWeakRef` holds a storage, and what it held when it was read first.

    Attributes:
        is_refilled: Whether a script has filled the array anew, as one does with a buffer.
    """

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array: Callable[[], np.ndarray[Any, Any] | None] = weakref.ref(array, self._forget)
        self._held: bytes | None = None
        self._is_alike = self.is_refilled = False

    def _forget(self, reference: Any) -> None:
        self._held = None

    def expired(self) -> bool:
        """Whether it is gone."""
        return self.array() is None

    def let_go(self) -> None:
        """It is another array from now on."""
        self.array, self._held = _nothing, None

    def holds_still(self, part: np.ndarray[Any, Any]) -> bool:
        """Whether a part of the array holds what it held at first; of a large one nobody remembers that.

        Of a buffer that is read whole, and where all values are alike, it is not told: they may be others.
        """
        whole = self.array()
        if whole is None or whole.size > MOST_VALUES or whole.dtype.hasobject or not whole.flags.forc:
            return True
        if self._held is None:
            self._held = whole.tobytes("A")
            self._is_alike = self._held == self._held[: whole.itemsize] * whole.size
            return True
        if self._is_alike or (self.is_refilled and part.nbytes == whole.nbytes):
            return False
        offset = _address_of(part) - _address_of(whole)
        held: np.ndarray[Any, Any] = np.ndarray(part.shape, part.dtype, self._held, offset, part.strides)
        return held.tobytes() == part.tobytes()


def _nothing() -> None:
    return None


def _address_of(array: np.ndarray[Any, Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _root_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array into which a view looks. Those in odd strides hold it by an object between."""
    root, base = array, array.base
    while base is not None:
        root = base if isinstance(base, np.ndarray) else root
        base = getattr(base, "base", None)
    return root


def _whole_of(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base


def _positions(tensor: Tensor) -> Integers:
    """Where in its storage each value of a tensor stands, int64 of its shape."""
    positions: Integers = np.array(tensor.storage_offset())
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        positions = positions[..., None] + np.arange(size) * stride
    return positions
