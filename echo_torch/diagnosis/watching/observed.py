"""The rows of a layer as they were seen, as stamps: what `reach` needs, without a word from anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.stamps import CheckedStamps, Stamps
from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.beginnings import changed_on_the_way, empty_lanes_of
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.recorded import Call
from echo_torch.diagnosis.watching.sources import Source, arrays_in, sources_of
from echo_torch.diagnosis.watching.standing import Standing, array_of

_BEGINNING = (
    2**40
)  # the step at which a row is said to begin whose sequence nobody has named: it may go back from there


_NONE = -1  # no lane, no call, and no place


class UnknownError(Exception):
    """What rows read cannot be said; why, in a sentence."""


class Place(NamedTuple):
    """Where a row stands.

    Attributes:
        sequence: Which sequence it reads.
        step: The step in it.
        place: The same as of `Places`.
    """

    sequence: int
    step: int
    place: int


@dataclass
class Chunk:
    """What a layer reads in one call of the whole model.

    Attributes:
        root: The number of that call.
        told: What somebody has said of where its rows stand; None: nobody has.
        lanes: For each row which lane it is: a row whose state goes on keeps its lane, wherever it is moved.
        sequence: Of each call of the layer, int64 (rows, steps).
        step: The same; -1 where nothing is read.
        starts: bool (rows, steps), where a state begins.
    """

    root: int
    told: CheckedStamps | None
    lanes: list[int]
    sequence: list[Integers] = field(default_factory=list)
    step: list[Integers] = field(default_factory=list)
    starts: list[NDArray[np.bool_]] = field(default_factory=list)

    def stamps(self) -> Stamps:
        """As stamps. What somebody has said of targets holds where the rows stand as they have said."""
        sequence, step, starts = (np.concatenate(parts, axis=1) for parts in (self.sequence, self.step, self.starts))
        stamps = Stamps(_spread(step, self.lanes, -1), _spread(sequence, self.lanes, 0), _spread(starts, self.lanes, 0))
        told = self.told
        if told is None or self.has_moved or not np.array_equal(np.maximum(told.step, -1), step):
            return stamps
        answers = told.answers if told.answers.size else None
        return stamps._replace(is_read=told.is_read, is_asked=told.is_asked, answers=answers)

    @property
    def has_moved(self) -> bool:
        """Whether a lane is another row than before."""
        return self.lanes != list(range(len(self.lanes)))


class Observed:
    """The training calls of a layer, as chunks.

    Args:
        own: The calls of the layer.
        seen: All that was seen.
        hand_overs: Those of the layer.

    Attributes:
        chunks: As they were read.

    Raises:
        UnknownError: If a place or the origin of a state is unknown.
    """

    def __init__(self, own: Sequence[Call], seen: Calls, hand_overs: HandOvers) -> None:
        self.chunks: list[Chunk] = []
        self._seen = seen
        self._hand_overs = hand_overs
        self._num_sequences = 0
        self._lanes: dict[int, Integers] = {}  # of each call, the lanes of its rows
        self._held = np.zeros((0, 2), np.int64)  # (lanes, 2), the call and its row that were the last ones in a lane
        self._stands = np.zeros((0, 3), np.int64)  # (lanes, 3), a `Place` each
        if changed_on_the_way(own, seen.calls):
            raise UnknownError("the model changes the state between two steps")
        calls = [call for call in own if call.trains and _fits(call)]
        if seen.first_skipped is not None:
            watched = [call for call in calls if call.number < seen.first_skipped]
            if 2 * len(watched) <= len(calls):  # as where an optimiser makes its first step late
                raise UnknownError("most of its calls came after some that were not watched")
            calls = watched
        self._last_use: dict[int, Integers] = {}  # of each call, by its rows: the last call that goes on with the state
        for call in calls:
            self._note_use(call)
        for call in calls:
            self._add(call)

    def _note_use(self, call: Call) -> None:
        for source in sources_of(call):
            num_rows = max(self._seen.calls[source.call].num_rows, int(source.left.max()) + 1)
            use = _lengthened(self._last_use.get(source.call, np.zeros(0, np.int64)), num_rows)
            use[source.left] = call.number
            self._last_use[source.call] = use

    def _add(self, call: Call) -> None:
        if call.standing is None:
            raise UnknownError("it is not known where its rows stand in the data")
        going_on = self._going_on(call)
        lanes, starts = self._lanes_of(call, going_on), going_on == _NONE
        self._held, self._stands = (_lengthened(each, int(lanes.max()) + 1) for each in (self._held, self._stands))
        sequence, step = self._steps(call.standing, lanes, starts)
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.root != call.root or last.lanes != lanes.tolist():
            last = Chunk(call.root, call.told, lanes.tolist())
            self.chunks.append(last)
        last.sequence.append(sequence)
        last.step.append(step)
        last.starts.append(starts[:, None] & (np.arange(step.shape[1]) == 0))
        self._lanes[call.number] = lanes
        self._held[lanes] = np.column_stack([np.full_like(lanes, call.number), np.arange(call.num_rows)])

    def _going_on(self, call: Call) -> Integers:
        """Of each row whose state goes on, its lane; `_NONE` of all others, which begin."""
        going_on, is_strange = np.full(call.num_rows, _NONE), np.full(call.num_rows, not call.entering.has_graph)
        is_strange[list(empty_lanes_of(call))] = False
        for source in sources_of(call):
            is_strange[source.lanes] = False
            if self._seen.calls[source.call].layer == call.layer:
                going_on[source.lanes] = self._lanes_left(source)
        if is_strange.any():
            raise UnknownError("a state enters that no call has left")
        lanes = going_on[going_on != _NONE].tolist()
        if len(set(lanes)) < len(lanes):
            raise UnknownError("a state goes on twice")
        return going_on

    def _lanes_left(self, source: Source) -> Integers:
        """The lanes of rows that a call has left, as long as no other is in them."""
        lanes = self._lanes.get(source.call)
        if lanes is not None and int(source.left.max()) < len(lanes):
            found = lanes[source.left]
            if (self._held[found] == np.column_stack([np.full_like(found, source.call), source.left])).all():
                return found
        raise UnknownError("a state goes on that no training call has left, or that has gone on before")

    def _lanes_of(self, call: Call, going_on: Integers) -> Integers:
        """A row that begins gets the lane of its number, if no state of that lane goes on, now or later."""
        lanes, taken = going_on.copy(), set(going_on.tolist())
        for row in np.flatnonzero(going_on == _NONE).tolist():
            lane = row
            while lane in taken or self._goes_on_after(lane, call.number):
                lane += 1
            taken.add(lane)
            lanes[row] = lane
        return lanes

    def _goes_on_after(self, lane: int, number: int) -> bool:
        if lane >= len(self._held):
            return False
        call, row = self._held[lane].tolist()
        use = self._last_use.get(call)
        return use is not None and row < len(use) and int(use[row]) > number

    def _steps(self, standing: Standing, lanes: Integers, starts: NDArray[np.bool_]) -> tuple[Integers, Integers]:
        """Sequence and step of each row, (rows, steps)."""
        places, before = standing.of_all_steps(), self._stands[lanes]
        sequence, step = np.zeros_like(places), np.full_like(places, -1)
        begins = starts | (before[:, 2] < ARRAY)
        is_even = self._are_even(standing, places)
        is_new = begins & is_even
        is_next = ~begins & is_even & self._hand_overs.are_next(before[:, 2], places[:, 0], standing.width)
        columns = np.arange(places.shape[1])
        sequence[is_new], step[is_new] = self._new_sequences(int(is_new.sum())), _BEGINNING + columns
        sequence[is_next], step[is_next] = before[is_next, :1], before[is_next, 1:2] + 1 + columns
        is_done = is_new | is_next
        self._stands[lanes[is_done]] = np.column_stack([sequence[:, -1], step[:, -1], places[:, -1]])[is_done]
        for row in np.flatnonzero(~is_done).tolist():
            is_read = places[row] >= ARRAY
            found = self._of_row(places[row][is_read], None if begins[row] else Place(*before[row].tolist()), standing)
            if found is not None:
                sequence[row, is_read], step[row, is_read] = found
                self._stands[lanes[row]] = found[0][-1], found[1][-1], places[row][is_read][-1]
        return sequence, step

    def _new_sequences(self, number: int) -> Integers:
        """So many that nobody has named, (number, 1)."""
        first = self._num_sequences + 1
        self._num_sequences += number
        return -np.arange(first, first + number)[:, None]

    def _are_even(self, standing: Standing, places: Integers) -> NDArray[np.bool_]:
        """Whether inside of a row each step is the next one behind that before it, in one array."""
        is_named = any(map(self._seen.places.arrays.is_named, arrays_in(places)))
        is_next = places.shape[1] == 1 or (standing.stride and standing.stride == self._hand_overs.stride)
        if not is_next or is_named:
            return np.zeros(len(places), bool)
        return np.asarray((places[:, 0] // ARRAY == places[:, -1] // ARRAY) & (places >= ARRAY).all(axis=1))

    def _of_row(
        self, places: Integers, before: Place | None, standing: Standing
    ) -> tuple[Integers, Integers] | None:  # fmt: skip
        """Sequence and step of each place; None without any."""
        if not len(places):
            return None
        arrays = places // ARRAY
        if all(self._seen.places.arrays.is_named(array) for array in set(arrays.tolist())):
            return arrays, places % ARRAY
        if standing.stride is not None and len(places) > 1:  # then each step is as far from the next
            first = self._next(before, int(places[0]), standing.width)
            second = self._next(first, int(places[1]), standing.width)
            if first.sequence == second.sequence:
                step = first.step + (second.step - first.step) * np.arange(len(places))
                return np.full(len(places), first.sequence), step
        found: list[Place] = []
        for place in places.tolist():
            before = self._next(before, place, standing.width)
            found.append(before)
        return np.array([one.sequence for one in found]), np.array([one.step for one in found])

    def _next(self, before: Place | None, place: int, width: int) -> Place:
        """Where a row stands that was somewhere before, or begins."""
        gap = self._hand_overs.gap(before.place, place, width) if before is not None else None
        if before is not None and gap is None:
            raise UnknownError(f"it is not known how array {array_of(place)} goes on from another")
        if before is not None and isinstance(gap, int):
            return Place(before.sequence, before.step + 1 + gap, place)
        return Place(int(self._new_sequences(1)[0, 0]), _BEGINNING, place)


def _fits(call: Call) -> bool:
    """Whether the state that enters has as many rows as the input."""
    return bool(call.num_rows) and call.entering.num_lanes in (0, call.num_rows)


def _lengthened(values: Integers, number: int) -> Integers:
    """As many rows at least; the new ones hold `_NONE`."""
    missing = np.full((max(0, number - len(values)), *values.shape[1:]), _NONE)
    return np.concatenate([values, missing]) if len(missing) else values


def _spread(values: NDArray[np.generic], lanes: Sequence[int], nothing: int) -> NDArray[np.generic]:
    """Rows put where their lanes are: (rows, steps) -> (largest lane + 1, steps)."""
    wide = np.full((max(lanes) + 1, values.shape[1]), nothing, values.dtype)
    wide[list(lanes)] = values
    return wide
