"""Does each row go on where its state stopped? A state is joined to its rows by the call that left it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from echo_torch.diagnosis.watching.calls import Call, Calls
from echo_torch.diagnosis.watching.lanes import Origin
from echo_torch.diagnosis.watching.standing import Standing, array_of, gap_between

OTHER = "other"  # as of `reach`: into another array, or elsewhere in it than steps lead


class HandOvers:
    """How the rows of a layer go on from one call of the whole model to a later one.

    Args:
        own: The calls of the layer.
        seen: All that was seen.

    Attributes:
        gaps: How often each gap lies between where a state stopped and where its row goes on; of those that are known.
        unknown: How many rows go on with a state in an array that is there for a batch alone.
        lost: How many rows go on exactly where the call before stopped, but without its state.
    """

    def __init__(self, own: Sequence[Call], seen: Calls) -> None:
        self._seen = seen
        self._stride = _usual_stride(own, seen)
        # Frames that a script has written into a buffer one by one are arrays too; a sequence is gone through.
        self._sequences = seen.lasting - (seen.places.arrays.copied - _walked(own, seen))
        self.gaps: Counter[int | str] = Counter()
        self.lost = self.unknown = 0
        before: Call | None = None
        for call in own:
            if call.standing is None:
                continue
            for lane, origin in _origins(call):
                self._hand_over(call, call.standing, lane, origin)
            reads_back = getattr(seen.layers[call.layer], "bidirectional", False)  # then no state can go on in time
            is_later = before is not None and before.root != call.root and not reads_back
            if is_later and before is not None and before.standing is not None:
                self.lost += sum(self._is_lost(before.standing, call.standing, lane) for lane in _empty_lanes(call))
            before = call

    @property
    def number(self) -> int:
        """How many rows go on with a state, as far as it is known where."""
        return sum(self.gaps.values())

    def _hand_over(self, call: Call, standing: Standing, lane: int, origin: Origin) -> None:
        left = self._seen.calls[origin.call]
        is_of_layer = left.layer == call.layer and left.root != call.root
        if is_of_layer and left.standing is not None and origin.lane < len(left.standing.last):
            gap = self._gap(left.standing.last[origin.lane], standing.first[lane], standing.width)
            if gap is None:
                self.unknown += 1
            else:
                self.gaps[gap] += 1

    def _is_lost(self, before: Standing, standing: Standing, lane: int) -> bool:
        both = lane < min(len(before.last), len(standing.first))
        return both and self._gap(before.last[lane], standing.first[lane], standing.width) == 0

    def _gap(self, last: int, first: int, width: int) -> int | str | None:
        arrays = {array_of(last), array_of(first)}
        if len(arrays) > 1:
            return OTHER if arrays <= self._sequences else None
        gap = gap_between(last, first, self._stride, width, self._seen.places)
        return OTHER if gap is None else gap


def _usual_stride(own: Sequence[Call], seen: Calls) -> int | None:
    """From one step to the next inside a call of the whole model; None where each reads a single step."""
    counts: Counter[int] = Counter()
    for call in own:
        if call.standing is None:
            continue
        if call.standing.stride is not None:
            counts[call.standing.stride] += 1
        for lane, origin in _origins(call):
            left = seen.calls[origin.call]
            if left.layer == call.layer and left.root == call.root and left.standing is not None:
                counts[call.standing.first[lane] - left.standing.last[origin.lane]] += 1
    return counts.most_common(1)[0][0] if counts else None


def _walked(own: Sequence[Call], seen: Calls) -> set[int]:
    """The arrays through which rows go, from one place to another."""
    found: set[int] = set()
    for call in own:
        if call.standing is None:
            continue
        moves = list(zip(call.standing.first, call.standing.last, strict=True))
        for lane, origin in _origins(call):
            left = seen.calls[origin.call].standing
            if left is not None and origin.lane < len(left.last):
                moves.append((left.last[origin.lane], call.standing.first[lane]))
        found |= {array_of(one) for one, other in moves if one != other and array_of(one) == array_of(other)}
    return found


def _origins(call: Call) -> Iterator[tuple[int, Origin]]:
    for lane in range(min(call.num_rows, call.entering.num_lanes)):
        for lanes in call.entering.origins:
            origin = lanes[lane] if lane < len(lanes) else None
            if origin is not None:
                yield lane, origin
                break


def _empty_lanes(call: Call) -> Sequence[int]:
    return call.entering.empty_lanes if call.entering.is_filled else range(call.num_rows)
