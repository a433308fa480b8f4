"""Which arrays are there for longer than a batch: a data set, a series, a text?"""

from __future__ import annotations

from collections.abc import Sequence

from echo_torch.diagnosis.watching.arrays import Arrays
from echo_torch.diagnosis.watching.standing import Even, array_of

_A_WHILE = 3  # calls of the whole model after which a batch is gone


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
        # Of each array the root that read it last, the places that were read first, and whether others were read later.
        self._read: dict[int, tuple[int, set[int], bool]] = {}

    def note_even(self, even: Even, now: int) -> None:
        """The same, of regular places: nothing is new where the same call of a module has read of the array before."""
        array = even.array
        root, _, has_moved = self._read.get(array, (0, (), False))
        if self._noted != now or not (array in self.numbers or (has_moved and root == now)):
            self.note(even.standing().first, now)

    def note(self, places: Sequence[int], now: int) -> None:
        """A call has read.

        Args:
            places: Where its rows begin.
            now: The number of the outermost call of a module in which it is.
        """
        found: dict[int, set[int]] = {}
        if isinstance(places, range):  # in even strides: all in one array
            array = array_of(places[0])
            _, first, has_moved = self._read.get(array, (0, set(), False))
            found[array] = first if has_moved else set(places)
        else:
            for place in places:
                found.setdefault(array_of(place), set()).add(place)
        self._noted = now
        for array, (root, first, has_moved) in list(self._read.items()):
            again = found.get(array, first)
            has_moved |= not (again <= first or first <= again)
            is_back = array in found and root < now - 1
            is_left = array not in found and root < now - _A_WHILE and self._arrays.is_alive(array)
            if has_moved and (is_back or is_left):
                self.numbers.add(array)
            self._read[array] = now if array in found else root, first, has_moved
            if array in self.numbers or not (array in found or self._arrays.is_alive(array)):
                del self._read[array]  # there is nothing more to be learned of it
        for array in found.keys() - self._read.keys() - self.numbers:
            self._read[array] = now, found[array], False
            self._come.setdefault(array, len(self._come))
            for other in self.numbers - self._gone.keys():
                if not self._arrays.is_alive(other):
                    self._gone[other] = len(self._come)

    def met(self, one: int, other: int) -> bool:
        """Whether an array was still there when another one was read first: a batch is gone when the next has come."""
        return one not in self._gone or self._come.get(other, -1) + 1 < self._gone[one]
