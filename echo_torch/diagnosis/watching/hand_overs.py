"""Does each row go on where its state stopped? A state is joined to its rows by the call that left it."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.beginnings import FEWEST_STEPS, Beginnings, begun_lanes
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.evaluations import evaluating
from echo_torch.diagnosis.watching.recorded import Call, by_root
from echo_torch.diagnosis.watching.sources import Source, arrays_in, as_array, sources_of
from echo_torch.diagnosis.watching.standing import Standing, array_of, gap_between, stride_between

_FEW = 5  # rows that go on by chance
_NEARLY_ALL = 0.9
_LOOKED_AT = 8  # calls that tell in which order a layer reads
OTHER = "other"  # as of `reach`: into another array, or elsewhere in it than steps lead


class HandOvers:
    """How the rows of a layer go on from one call of the whole model to a later one.

    Args:
        own: The calls of the layer.
        seen: All that was seen.

    Attributes:
        gaps: How often each gap lies between where a state stopped and where its row goes on; of those that are known.
        unknown: How many rows go on of which it is not known how far from where their state stopped.
        beginnings: The rows that begin without a state in a later call, where it is known of both where they stand.
        moved: How many rows go on exactly where another row than that of their state stopped; not in `gaps`. None where
            that is rare, as of the first of consecutive windows.
    """

    def __init__(self, own: Sequence[Call], seen: Calls) -> None:
        self._seen = seen
        self.stride = _usual_stride(own, seen)
        # Frames that a script has written into a buffer one by one are arrays too; a sequence is gone through.
        self._sequences = seen.lasting.numbers - (seen.places.arrays.copied - _walked(own, seen))
        self._walks_inside = _walks_inside(own, seen, self.stride)
        self._evaluating = evaluating(own)
        self.gaps: Counter[int | str] = Counter()
        self.beginnings = Beginnings()
        self.unknown = self.moved = 0
        self._of_moved: list[int | str | None] = []  # their gaps
        self._into_evaluations: Counter[int | str] = Counter()  # the gaps of rows that an evaluation goes on with
        self._orders: dict[tuple[int, int], bool] = {}  # by arrays and distances
        self._standings = [call.standing for call in own if call.standing is not None]
        self._beginnings = {tuple(call.standing.first) for call in own if call.standing and not call.entering.calls}
        before: Call | None = None
        stepped = _stepped_without_state(own)
        for call in own:
            if call.standing is None:
                continue
            for source in sources_of(call):
                self._hand_over(call, call.standing, source)
            reads_back = getattr(seen.layers[call.layer], "bidirectional", False)  # then no state can go on in time
            is_later = before is not None and (before.root != call.root or call.root in stepped) and not reads_back
            if is_later and before is not None and before.standing is not None:
                self._begin(before, before.standing, call, call.standing)
            before = call
        if not stepped and not any(call.entering.is_given or call.num_rows > 1 for call in own):
            self.beginnings = Beginnings()  # of one window after the other
        self._judge_evaluations()
        self._judge_moves()

    @property
    def has_other_order(self) -> bool:
        """Whether samples were read of which their values tell that they are no consecutive ones."""
        return any(self._orders.values())

    @property
    def number(self) -> int:
        """How many rows go on with a state, as far as it is known where."""
        return sum(self.gaps.values())

    def _hand_over(self, call: Call, standing: Standing, source: Source) -> None:
        left = self._seen.calls[source.call]
        is_of_layer = left.layer == call.layer and left.root != call.root
        if not is_of_layer or _are_steps(left, call):
            return
        if left.standing is None:
            self.unknown += 0 if left.is_remembered else len(source.lanes)
            return
        lanes, lasts, firsts = _joined(left.standing, standing, source)
        is_next = self.are_next(lasts, firsts, standing.width)
        self.gaps[0] += int(is_next.sum())
        is_leaving = call.trains and left.number in self._evaluating
        is_entering = left.trains and call.number in self._evaluating
        for lane, last in zip(lanes[~is_next].tolist(), lasts[~is_next].tolist(), strict=True):
            gap = self.gap(last, standing.first[lane], standing.width)
            if gap not in (0, None) and is_leaving:
                continue  # a state of an evaluation goes into the training: `leaks_in` tells of that
            if gap != 0 and self._has_moved(left.standing, standing, lane):
                self._of_moved.append(gap)
            elif gap is None:
                self.unknown += 1
            else:
                (self._into_evaluations if is_entering else self.gaps)[gap] += 1

    def are_next(self, lasts: Integers, firsts: Integers, width: int) -> NDArray[np.bool_]:
        """Whether each row goes on with the very next step of its array: `gap` is 0 then, and mostly all do."""
        distances, stride = firsts - lasts, self.stride
        if not stride and len(set(distances.tolist())) == 1 and len(arrays_in(lasts)) == 1:
            stride = stride_between(int(lasts[0]), int(firsts[0]), width, self._seen.places)
        return distances == stride if stride else np.zeros(len(lasts), bool)

    def _has_moved(self, left: Standing, standing: Standing, lane: int) -> bool:
        """Whether a row goes on exactly where any row of a call stopped, and not because the data begin anew."""
        if _overlap(standing):  # then one of them ends nearly everywhere
            return False
        first, width = standing.first[lane], standing.width
        axes = self._seen.places.arrays.axes_of(array_of(first))
        ways = {self.stride} if self.stride else {width, *(each for _, each in axes if each > width)}
        for size, stride in axes:
            if stride == self.stride and first % ARRAY // stride % size == 0:  # from another chunk, not from its side
                ways = {each - (size - 1) * stride for _, each in axes if each > stride * size}
        near = [last for last in left.last if first - last in ways]
        is_beginning = tuple(standing.first) in self._beginnings
        return not is_beginning and any(self.gap(last, first, width) == 0 for last in near)

    def _judge_evaluations(self) -> None:
        """An evaluation may go on behind the training's data; where the distances are many, it reads something else."""
        found, number = self._into_evaluations, self._into_evaluations.total()
        if found and 2 * max(found.values()) < number:
            found = Counter({OTHER: number})
        self.gaps.update(found)

    def _judge_moves(self) -> None:
        """Rows have moved if most rows go on somewhere in the batch before; else they meet by chance."""
        if 2 * (len(self._of_moved) + self.gaps[0]) > len(self._of_moved) + self.number:
            self.moved = len(self._of_moved)
        else:
            self.gaps.update(gap for gap in self._of_moved if gap is not None)
            self.unknown += self._of_moved.count(None)

    def _begin(self, before: Call, left: Standing, call: Call, standing: Standing) -> None:
        num_rows = min(len(left.last), len(standing.first))
        lanes = [lane for lane in begun_lanes(call) if lane < num_rows and not _is_told_to_start(call, lane)]
        # Of windows that overlap each is a sample of its own, though another one may end just before it.
        are_samples = _overlap(standing) or self._seen.places.arrays.overlaps(array_of(standing.first[0]))
        lost = [] if are_samples else self._lost(left, standing, lanes)
        is_aside = any(self._is_aside(left.last[lane], standing.first[lane]) for lane in lost)
        self.beginnings.note(before, call, len(lanes), len(lost), is_aside=is_aside)

    def _lost(self, before: Standing, standing: Standing, lanes: Sequence[int]) -> list[int]:
        """Those of some rows that go on exactly where the call before stopped."""
        rows = np.array(lanes, np.int64)
        lasts, firsts = as_array(before.last)[rows], as_array(standing.first)[rows]
        is_within = lasts // ARRAY == firsts // ARRAY
        return [lane for lane in rows[is_within].tolist() if self._is_lost(before, standing, lane)]

    def _is_lost(self, before: Standing, standing: Standing, lane: int) -> bool:
        if len(standing.first) == 1 and self._is_elsewhere(before.last[0], standing.first[0]):
            return False  # of samples that are read one by one the next is none that goes on
        return self.gap(before.last[lane], standing.first[lane], standing.width) == 0

    def _is_aside(self, last: int, first: int) -> bool:
        """Whether a row goes on in the next part of an array, as that of the next chunk, or of the next batch."""
        is_next = not self.stride or (first - last == self.stride and not self._ends_part(last))
        return not is_next and self._seen.places.selections.gap(last, first) != 0

    def _ends_part(self, last: int) -> bool:
        """Whether a place is the last along the axis of the steps, of an array with an axis outside of that."""
        axes = self._seen.places.arrays.axes_of(array_of(last))
        inner = [size for size, each in axes if size > 1 and each == self.stride]
        has_outer = any(size > 1 and each > (self.stride or 0) for size, each in axes)
        return has_outer and any(last % ARRAY // (self.stride or 1) % size == size - 1 for size in inner)

    def goes_on(self, before: Call, call: Call) -> bool | None:
        """Whether most rows go on exactly where those stopped whose states they have; None where that is unknown."""
        if before.standing is None or call.standing is None:
            return None
        number, gaps = 0, []
        for source in sources_of(call):
            _, lasts, firsts = _joined(before.standing, call.standing, source)
            is_next = self.are_next(lasts, firsts, call.standing.width)
            number += int(is_next.sum())
            ends = zip(lasts[~is_next].tolist(), firsts[~is_next].tolist(), strict=True)
            gaps += [self.gap(last, first, call.standing.width) for last, first in ends]
        return None if None in gaps else 2 * (number + gaps.count(0)) > number + len(gaps)

    def gap(self, last: int, first: int, width: int) -> int | str | None:
        """Steps between two places, `OTHER` where none lead from one to the other; None where it is unknown."""
        one, other = array_of(last), array_of(first)
        if one != other:
            return OTHER if {one, other} <= self._sequences and self._seen.lasting.met(one, other) else None
        if self.stride and first - last == self.stride:
            return 0
        gap = gap_between(last, first, self.stride, width, self._seen.places)
        picked = self._seen.places.selections.gap(last, first) if gap != 0 else None
        if picked is not None and (picked == 0 or self._reads_picked):
            return picked
        if gap and self._walks_inside and self._is_elsewhere(last, first):
            return OTHER
        if gap and self._are_of_another_order(last, first):
            return None
        return OTHER if gap is None else gap

    def _are_of_another_order(self, last: int, first: int) -> bool:
        """Whether the samples of an array are no consecutive ones, so that their distance tells nothing."""
        way = array_of(last), first - last
        if way not in self._orders:
            self._orders[way] = self._seen.places.arrays.is_of_another_order(last, first)
        return self._orders[way]

    @functools.cached_property
    def _reads_picked(self) -> bool:
        """Whether the rows go on, inside a call, in the order in which their places were picked out of an array."""
        gaps = [
            self._seen.places.selections.gap(int(last), int(first))
            for standing in itertools.islice((each for each in self._standings if each.places is not None), _LOOKED_AT)
            for last, first in itertools.pairwise(standing.of_all_steps()[0])
            if first - last != self.stride
        ]
        return 2 * gaps.count(0) > len(gaps)

    def _is_elsewhere(self, last: int, first: int) -> bool:
        """Whether two places stand in different rows of an array that is read along its rows, part by part."""
        axes = self._seen.places.arrays.axes_of(array_of(last))
        outer = [(size, each) for size, each in axes if size > 1 and self.stride and each > self.stride]
        return any(last % ARRAY // each % size != first % ARRAY // each % size for size, each in outer)


def _overlap(standing: Standing) -> bool:
    """Whether rows are windows of one series that overlap."""
    first, last, stride = standing.first[:2], standing.last[0], standing.stride
    if len(first) < 2 or not stride or not first[0] < first[1] <= last:
        return False
    return (first[1] - first[0]) % stride == 0  # else their steps take turns


def is_lost(number: int, rows: HandOvers) -> bool:
    """Whether so many rows without their states are no few, and most of all that go on where they stopped."""
    going_on = rows.beginnings.continued + rows.gaps[0]
    return number >= _FEW and (number >= _NEARLY_ALL * going_on or rows.gaps[OTHER] > 0)


def _usual_stride(own: Sequence[Call], seen: Calls) -> int | None:
    """From one step to the next inside a call of the whole model; None where each reads a single step."""
    counts: Counter[int] = Counter()
    for call in own:
        if call.standing is None:
            continue
        if call.standing.stride is not None and abs(call.standing.stride) < ARRAY:
            counts[call.standing.stride] += call.num_rows * max(1, call.num_steps - 1)
        for source in sources_of(call):
            left = seen.calls[source.call]
            is_inside = left.root == call.root or _are_steps(left, call)
            if left.layer == call.layer and is_inside and left.standing is not None:
                _, lasts, firsts = _joined(left.standing, call.standing, source)
                counts.update((firsts - lasts)[firsts // ARRAY == lasts // ARRAY].tolist())
    return counts.most_common(1)[0][0] if counts.total() else None


def _walked(own: Sequence[Call], seen: Calls) -> set[int]:
    """The arrays through which rows go, from one place to another."""
    found: set[int] = set()
    for call in own:
        if call.standing is None:
            continue
        if call.standing.first is not call.standing.last:
            found |= _moved_in(as_array(call.standing.first), as_array(call.standing.last))
        for source in sources_of(call):
            left = seen.calls[source.call].standing
            if left is not None:
                _, lasts, firsts = _joined(left, call.standing, source)
                found |= _moved_in(lasts, firsts)
    return found


def _moved_in(places: Integers, others: Integers) -> set[int]:
    """The arrays in which others of the same rows are at other places."""
    return arrays_in(places[(places != others) & (places // ARRAY == others // ARRAY)])


def _joined(left: Standing, standing: Standing, source: Source) -> tuple[Integers, Integers, Integers]:
    """Rows that go on, where each stopped and where it goes on; none that the call before did not have."""
    lasts, is_there = as_array(left.last), source.left < len(left.last)
    lanes = source.lanes[is_there]
    return lanes, lasts[source.left[is_there]], as_array(standing.first)[lanes]


def _walks_inside(own: Sequence[Call], seen: Calls, stride: int | None) -> bool:
    """Whether a call reads but a part of a row of its array: then the rows are sequences, and no chunks of one."""
    for call in own:
        if call.standing is not None and stride:
            axes = seen.places.arrays.axes_of(array_of(call.standing.first[0]))
            sizes = {each: size for size, each in axes if size > 1}
            if call.standing.stride == stride and call.standing.num_steps < sizes.get(stride, 0) and len(sizes) > 1:
                return True
    return False


def _stepped_without_state(own: Sequence[Call]) -> set[int]:
    """The calls of the whole model inside of which a loop makes single steps, of which none has a state."""
    return {
        root
        for root, calls in by_root(own).items()
        if len(calls) >= FEWEST_STEPS and all(call.num_steps == 1 and not call.entering.is_filled for call in calls)
    }


def _are_steps(left: Call, call: Call) -> bool:
    """Whether a loop outside of any module makes single steps, of which one gradient goes back through all."""
    is_single = call.standing is not None and call.standing.num_steps == 1
    return is_single and call.entering.has_graph and call.reached is not None and call.reached == left.reached


def _is_told_to_start(call: Call, lane: int) -> bool:
    return call.told is not None and len(call.told.starts) == call.num_rows and bool(call.told.starts[lane, 0])
