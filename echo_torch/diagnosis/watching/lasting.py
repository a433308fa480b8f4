"""Which arrays are there for longer than a batch: a data set, a series, a text?"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence, Set
from typing import NamedTuple

from echo_torch.diagnosis.watching.arrays import Arrays
from echo_torch.diagnosis.watching.standing import Even, array_of

_A_WHILE = 3  # calls of the whole model after which a batch is gone


class _Read(NamedTuple):
    """How an array has been read.

    Attributes:
        root: The call of the whole model that has read it last.
        first: The places that were read first.
        has_moved: Whether others were read later.
        note: The number of the last note of it.
    """

    root: int
    first: Set[int]
    has_moved: bool
    note: int


_NEVER = _Read(0, frozenset(), False, 0)


class LastingArrays:
    """An array lasts if other places of it are read later, and it is there when no batch would be any more.

    Args:
        arrays: Tells which are still there.

    Attributes:
        numbers: The numbers of the arrays that last.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.numbers: set[int] = set()
        self._arrays = arrays
        self._noted = 0  # the last root
        self._come: dict[int, int] = {}  # of each array, how many had been read before it
        self._gone: dict[int, int] = {}  # of arrays that last, how many had been read when they were there no more
        self._read: dict[int, _Read] = {}  # of each array of which it is open whether it lasts
        self._note_number = 0
        self._old: deque[tuple[int, int]] = deque()  # roots, and the arrays that they have read, the earliest first

    def note_even(self, even: Even, now: int) -> None:
        """The same, of regular places: nothing is new where the same call of a module has read of the array before."""
        array = even.array
        root, _, has_moved, _ = self._read.get(array, _NEVER)
        if self._noted != now or not (array in self.numbers or (has_moved and root == now)):
            self.note(even.standing().first, now)

    def note(self, places: Sequence[int], now: int) -> None:
        """A call has read.

        Args:
            places: Where its rows begin.
            now: The number of the outermost call of a module in which it is.
        """
        found: dict[int, Set[int]] = {}
        if isinstance(places, range) and array_of(places[0]) == array_of(places[-1]):  # in even strides
            array = array_of(places[0])
            _, first, has_moved, _ = self._read.get(array, _NEVER)
            found[array] = first if has_moved else set(places)
        else:
            of_each: defaultdict[int, set[int]] = defaultdict(set)
            for place in places:
                of_each[array_of(place)].add(place)
            found.update(of_each)
        self._noted, self._note_number = now, self._note_number + 1
        for array in found.keys() & self._read.keys():
            self._read_again(array, found[array], now)
        self._look_at_old(now)
        new = found.keys() - self._read.keys() - self.numbers
        for number, array in enumerate(new):
            self._read[array] = _Read(now, found[array], False, self._note_number)
            self._come.setdefault(array, len(self._come))
            self._old.append((now, array))
            if number == 0:
                self._note_gone()

    def _read_again(self, array: int, again: Set[int], now: int) -> None:
        root, first, has_moved, number = self._read[array]
        if number < self._note_number - 1 and not self._arrays.is_alive(array):
            del self._read[array]  # a copy is read of what is gone
            return
        has_moved |= not (again <= first or first <= again)
        self._read[array] = _Read(now, first, has_moved, self._note_number)
        if has_moved and root < now - 1:
            self._last(array)
        elif root < now:
            self._old.append((now, array))

    def _note_gone(self) -> None:
        for other in self.numbers - self._gone.keys():
            if not self._arrays.is_alive(other):
                self._gone[other] = len(self._come)

    def _look_at_old(self, now: int) -> None:
        """Look once at each array that nobody has read for a while: a batch is gone now."""
        while self._old and self._old[0][0] < now - _A_WHILE:
            root, array = self._old.popleft()
            read = self._read.get(array)
            if read is None or read.root != root:
                continue
            if not self._arrays.is_alive(array):
                del self._read[array]  # there is nothing more to be learned of it
            elif read.has_moved:
                self._last(array)

    def _last(self, array: int) -> None:
        self.numbers.add(array)
        del self._read[array]

    def met(self, one: int, other: int) -> bool:
        """Whether an array was still there when another one was read first: a batch is gone when the next has come."""
        return one not in self._gone or self._come.get(other, -1) + 1 < self._gone[one]
