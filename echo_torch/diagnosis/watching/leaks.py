"""Does a training go on with the state of an evaluation, and is that a leak or a warm-up?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
        unclear: At how many that may be a warm-up: it is not known where the training goes on, after an evaluation that
            began by itself; or, of calls without gradients, whether they evaluate.
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
    leaving = [change for change in changes if _takes_all(change.before, change.call)]
    known = [rows.goes_on(change.before, change.call) for change in leaving]
    if known.count(True) > known.count(False):  # then it is the way of this training, also where nobody sees it
        return Leaks(len(changes), known.count(False), 0)
    leaked = unclear = 0
    is_series = any(change.last is not None and _goes_on_behind(change.last, change.call, rows) for change in leaving)
    for change, goes_on in zip(leaving, known, strict=True):
        if change.before.is_training:  # it is no evaluation for certain
            is_own = is_series if change.last is None else _goes_on_behind(change.last, change.call, rows)
            is_doubtful = goes_on is None or not is_own
        else:
            is_doubtful = goes_on is None and _begins_by_itself(change.before, seen)
        unclear += is_doubtful and not goes_on
        leaked += not is_doubtful and not goes_on
    return Leaks(len(changes), leaked, unclear)


class _Change(NamedTuple):
    """A training call behind an evaluating one, and the last training call before."""

    last: Call | None
    before: Call
    call: Call


def _changes(own: Sequence[Call]) -> Iterator[_Change]:
    others, last = evaluating(own), None
    for before, call in itertools.pairwise(own):
        if before.trains:
            last = before
        if call.trains and before.number in others:
            yield _Change(last, before, call)


def _goes_on_behind(last: Call, call: Call, rows: HandOvers) -> bool:
    """Whether the training goes on in its own rows, near where it stopped: samples of their own it reads elsewhere."""
    if last.standing is None or call.standing is None:
        return False
    pairs = zip(last.standing.last, call.standing.first, strict=False)
    gaps = [rows.gap(one, other, call.standing.width) for one, other in pairs]
    return 2 * sum(isinstance(gap, int) and 0 <= gap <= call.num_steps for gap in gaps) > len(gaps)


def _takes_all(before: Call, call: Call) -> bool:
    return call.entering.calls == {before.number}


def _begins_by_itself(call: Call, seen: Calls) -> bool:
    """Whether an evaluation began without a state, and so not with that of the training."""
    while call.entering.calls:
        call = seen.calls[max(call.entering.calls)]
        if call.trains:
            return False
    return not call.entering.is_filled
