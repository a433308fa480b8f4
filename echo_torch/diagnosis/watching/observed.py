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
from echo_torch.diagnosis.watching.hand_overs import HandOvers, origins_of
from echo_torch.diagnosis.watching.recorded import Call
from echo_torch.diagnosis.watching.standing import Standing, array_of

_BEGINNING = (
    2**40
)  # the step at which a row is said to begin whose sequence nobody has named: it may go back from there


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

    Attributes:
        chunks: As they were read.

    Raises:
        UnknownError: If a place or the origin of a state is unknown.
    """

    def __init__(self, own: Sequence[Call], seen: Calls) -> None:
        self.chunks: list[Chunk] = []
        self._seen = seen
        self._hand_overs = HandOvers(own, seen)
        self._num_sequences = 0
        self._holders: dict[tuple[int, int], int] = {}  # of each row of a call that may go on, the lane
        self._held: dict[int, tuple[int, int]] = {}  # and the other way round
        self._stands: dict[int, Place] = {}  # of each lane
        if changed_on_the_way(own, seen.calls):
            raise UnknownError("the model changes the state between two steps")
        calls = [call for call in own if call.trains and _fits(call)]
        if seen.first_skipped is not None:
            watched = [call for call in calls if call.number < seen.first_skipped]
            if 2 * len(watched) <= len(calls):  # as where an optimiser makes its first step late
                raise UnknownError("most of its calls came after some that were not watched")
            calls = watched
        self._last_use = {
            (origin.call, origin.lane): call.number for call in calls for _, origin in origins_of(call)
        }  # fmt: skip
        for call in calls:
            self._add(call)

    def _add(self, call: Call) -> None:
        if call.standing is None:
            raise UnknownError("it is not known where its rows stand in the data")
        going_on = self._going_on(call)
        lanes = self._lanes_of(call, going_on)
        starts = np.array([row not in going_on for row in range(call.num_rows)])
        sequence, step = self._steps(call.standing, lanes, starts)
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.root != call.root or last.lanes != lanes:
            last = Chunk(call.root, call.told, lanes)
            self.chunks.append(last)
        last.sequence.append(sequence)
        last.step.append(step)
        last.starts.append(starts[:, None] & (np.arange(step.shape[1]) == 0))
        for row, lane in enumerate(lanes):
            self._holders.pop(self._held.pop(lane, (-1, -1)), None)
            self._holders[call.number, row] = lane
            self._held[lane] = call.number, row

    def _going_on(self, call: Call) -> dict[int, int]:
        """Of each row whose state goes on, its lane; all others begin."""
        known, empty = dict(origins_of(call)), set(empty_lanes_of(call))
        going_on: dict[int, int] = {}
        for row in range(call.num_rows):
            if row in empty:
                continue
            if row in known and self._seen.calls[known[row].call].layer == call.layer:
                lane = self._holders.get((known[row].call, known[row].lane))
                if lane is None or lane in going_on.values():
                    raise UnknownError("a state goes on that no training call has left, or that has gone on before")
                going_on[row] = lane
            elif row not in known and not call.entering.has_graph:
                raise UnknownError("a state enters that no call has left")
        return going_on

    def _lanes_of(self, call: Call, going_on: dict[int, int]) -> list[int]:
        """A row that begins gets the lane of its number, if no state of that lane goes on, now or later."""
        taken, lanes = set(going_on.values()), []
        for row in range(call.num_rows):
            lane = going_on.get(row, row)
            if row not in going_on:
                while lane in taken or self._goes_on_after(lane, call.number):
                    lane += 1
                taken.add(lane)
            lanes.append(lane)
        return lanes

    def _goes_on_after(self, lane: int, number: int) -> bool:
        return lane in self._held and self._last_use.get(self._held[lane], -1) > number

    def _steps(
        self, standing: Standing, lanes: Sequence[int], starts: NDArray[np.bool_]
    ) -> tuple[Integers, Integers]:  # fmt: skip
        """Sequence and step of each row, (rows, steps)."""
        places = standing.of_all_steps()
        sequence, step = np.zeros((2, *places.shape), np.int64)
        for row, lane in enumerate(lanes):
            is_read = places[row] >= ARRAY
            own = places[row][is_read]
            before = None if starts[row] else self._stands.get(lane)
            found = self._of_row(own, before, standing)
            step[row] = -1
            if found is not None:
                sequence[row, is_read], step[row, is_read] = found
                self._stands[lane] = Place(int(found[0][-1]), int(found[1][-1]), int(own[-1]))
        return sequence, step

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
        self._num_sequences += 1
        return Place(-self._num_sequences, _BEGINNING, place)


def _fits(call: Call) -> bool:
    """Whether the state that enters has as many rows as the input."""
    return bool(call.num_rows) and call.entering.num_lanes in (0, call.num_rows)


def _spread(values: NDArray[np.generic], lanes: Sequence[int], nothing: int) -> NDArray[np.generic]:
    """Rows put where their lanes are: (rows, steps) -> (largest lane + 1, steps)."""
    wide = np.full((max(lanes) + 1, values.shape[1]), nothing, values.dtype)
    wide[list(lanes)] = values
    return wide
