"""Where a layer begins, and rows that begin without a state: is one lost there, or is none meant?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo_torch.diagnosis.watching.foreign import DRAWN, WORDS
from echo_torch.diagnosis.watching.recorded import Call, are_of_one_pass, by_root

FEWEST_STEPS = 4  # that a loop makes: fewer inputs of one step may be a pair, or a triplet
_NEARLY_ALL = 0.9  # of the rows that are read without gradients: a stream, and no parts of samples


@dataclass
class _Counts:
    """Rows that begin without a state in a later call, and how many go on exactly where the call before stopped."""

    number: int = 0
    lost: int = 0


class Beginnings:
    """Counts rows that begin without a state, or with numbers drawn anew, though they go on where others stopped.

    A state is lost if it is gone between two backward passes, or where single steps follow without any. What may be
    meant looks alike: calls from which one backward pass comes back may read parts of a sample, each by itself, as the
    halves of a pair; and an array of batches may hold samples of their own.
    """

    def __init__(self) -> None:
        self._apart, self._beside, self._untrained, self._aside = _Counts(), _Counts(), _Counts(), _Counts()

    def note(self, before: Call, call: Call, number: int, lost: int, *, is_aside: bool) -> None:
        """A call has been read after another.

        Args:
            before: The call before.
            call: The call.
            number: How many of its rows begin.
            lost: How many of these go on exactly where the call before stopped.
            is_aside: Whether that is the next part of an array, and not the next step beside in it.
        """
        counts = self._aside if is_aside else self._apart
        is_used = before.root == call.root and before.reached is not None  # as the members of a set, each by itself
        is_alone = call.num_steps == 1 and not before.entering.is_filled and not is_used
        if not is_alone and not is_aside:
            is_trained = before.reached is not None or call.reached is not None
            counts = self._untrained if not is_trained else self._beside if _share_a_gradient(before, call) else counts
        counts.number += number
        counts.lost += lost

    @property
    def number(self) -> int:
        """How many rows begin."""
        return sum(each.number for each in self._all)

    @property
    def continued(self) -> int:
        """How many of them go on exactly where the call before stopped, be it by chance."""
        return sum(each.lost for each in self._all)

    @property
    def lost(self) -> int:
        """How many states are lost; 0 where that may be meant, or rows meet by chance, as those of shuffled samples."""
        is_rule = _is_rule(self._apart) or _is_rule(self._untrained, _NEARLY_ALL)
        return self.continued if is_rule else 0

    @property
    def unclear(self) -> int:
        """How many may be lost or meant."""
        parts = self._beside, self._untrained, self._aside
        is_usual = 2 * self._aside.lost >= self._aside.number + self._apart.number  # else rows meet by chance
        is_rule = _is_rule(self._beside) or _is_rule(self._untrained) or (_is_rule(self._aside) and is_usual)
        return sum(each.lost for each in parts) if is_rule and not self.lost else 0

    @property
    def _all(self) -> tuple[_Counts, ...]:
        return self._apart, self._beside, self._untrained, self._aside


def _is_rule(counts: _Counts, share: float = 0.5) -> bool:
    return counts.lost > 0 and counts.lost >= share * counts.number


def _share_a_gradient(before: Call, call: Call) -> bool:
    """Whether no gradient had come back to a call when the next one was made."""
    return before.reached_before is None or before.reached_before > call.number


def beginnings_in(own: Sequence[Call], calls: Sequence[Call]) -> list[Call]:
    """The calls with which a layer begins: all that are no steps inside a call of the whole model.

    A step goes on with what an earlier call of the layer has left inside the same call of the whole model, be it as it
    is, or as the model has changed it on the way.

    Args:
        own: The calls of the layer that count.
        calls: All that were recorded.
    """
    found: list[Call] = []
    begun: dict[int, set[int | None]] = {}  # of each call of the whole model, what the model has made for it to begin
    for call in own:
        made = begun.get(call.root)
        if made is None or call.entering.made in made - {None} or not _is_step(call, calls):
            found.append(call)
            begun.setdefault(call.root, set()).add(call.entering.made)
    return found


def changed_on_the_way(own: Sequence[Call], calls: Sequence[Call]) -> set[int]:
    """The numbers of training calls that go on with a state which the model has changed since the call before.

    Which call had left that is not known, nor of which row it was. So it is inside a call of the whole model, and in a
    loop outside of any if one gradient goes back through both.

    Args:
        own: The calls of the layer.
        calls: As of `beginnings_in`.
    """
    trained = [call for call in own if call.trains]
    begun = {call.number for call in beginnings_in(trained, calls)}
    made = [call for call in trained if call.entering.has_graph and not call.entering.calls]
    before = dict(zip((call.number for call in trained[1:]), trained, strict=False))
    first = {call.entering.made for call in trained if call.number not in before}
    return {
        call.number
        for call in made
        if call.number not in begun
        or (call.number in before and call.entering.made not in first and are_of_one_pass(before[call.number], call))
    }


def kind_of(call: Call) -> str:
    """With what a call begins: "empty", "carried", "made" by the model, or "unknown"."""
    if not call.entering.is_filled:
        return "empty"
    if call.entering.calls:
        return "carried"
    return "made" if call.entering.has_graph else "unknown"


def steps_from_one_state(own: Sequence[Call]) -> int:
    """How many single steps begin with the state of the step before them, inside a call of the whole model.

    What the step before has left is not handed on then. Only where all steps of a loop are so it may be forgotten.

    Args:
        own: The calls of the layer.
    """
    loops = by_root(call for call in own if call.trains).values()
    return sum(len(loop) - 1 for loop in loops if len(loop) >= FEWEST_STEPS and _begin_alike(loop))


def _begin_alike(loop: Sequence[Call]) -> bool:
    begin = loop[0].entering
    is_known = bool(begin.calls) or begin.made is not None
    return is_known and all(
        call.is_step and (call.entering.calls, call.entering.made) == (begin.calls, begin.made) for call in loop
    )


def _is_step(call: Call, calls: Sequence[Call]) -> bool:
    """Whether a call that is not the first inside a call of the whole model goes on with what one before it left."""
    entering = call.entering
    if not entering.is_filled:
        return False
    if entering.calls:
        before = [calls[number] for number in entering.calls]
        return any((one.layer, one.root) == (call.layer, call.root) and not one.is_remembered for one in before)
    # Of a state without a graph only a training call is asked what it was made of.
    return entering.has_graph or not call.trains or entering.strange in WORDS


def begun_lanes(call: Call) -> Sequence[int]:
    """The lanes that begin without a state, with zeros, or with numbers that are drawn anew."""
    return range(call.num_rows) if call.entering.strange == DRAWN else empty_lanes_of(call)


def empty_lanes_of(call: Call) -> Sequence[int]:
    """The lanes that begin without a state, or with zeros."""
    return call.entering.empty_lanes if call.entering.is_filled else range(call.num_rows)
