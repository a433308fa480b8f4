"""Does a training go on with the state of an evaluation, and is that a leak or a warm-up?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.evaluations import evaluating
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.recorded import Call


class Leaks(NamedTuple):
    """What the changes from evaluation to training show.

    Attributes:
        number: How many changes there are.
        leaked: At how many the training goes on with what the very last evaluating call left, elsewhere than that
            stopped.
        unclear: At how many it is not known where, after an evaluation that began by itself: that may be a warm-up.
    """

    number: int
    leaked: int
    unclear: int


def leaks_in(own: Sequence[Call], seen: Calls, rows: HandOvers) -> Leaks:
    """Whether states of evaluations get into the training.

    A state is warmed up where a row goes on in the training exactly where the evaluation stopped, as after the burn-in
    of a sequence that is replayed.

    Args:
        own: The calls of a layer.
        seen: All that was seen.
        rows: Its hand-overs.
    """
    changes = list(_changes(own))
    leaving = [pair for pair in changes if _takes_all(*pair)]
    known = [rows.goes_on(before, call) for before, call in leaving]
    if known.count(True) > known.count(False):  # then it is the way of this training, also where nobody sees it
        return Leaks(len(changes), known.count(False), 0)
    unknown = [before for (before, _), goes_on in zip(leaving, known, strict=True) if goes_on is None]
    begun = sum(_begins_by_itself(before, seen) for before in unknown)
    return Leaks(len(changes), len(unknown) - begun + known.count(False), begun)


def _changes(own: Sequence[Call]) -> list[tuple[Call, Call]]:
    """Training calls behind evaluating ones."""
    others = evaluating(own)
    return [(before, call) for before, call in itertools.pairwise(own) if call.trains and before.number in others]


def _takes_all(before: Call, call: Call) -> bool:
    known = call.entering.known()
    return bool(known) and all(origin.call == before.number for origin in known)


def _begins_by_itself(call: Call, seen: Calls) -> bool:
    """Whether an evaluation began without a state, and so not with that of the training."""
    while call.entering.calls:
        call = seen.calls[max(call.entering.calls)]
        if call.trains:
            return False
    return not call.entering.is_filled
