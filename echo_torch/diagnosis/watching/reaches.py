"""Reach and horizon of a layer, from its calls alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from echo_torch.diagnosis.data_path.explaining import reach_lines
from echo_torch.diagnosis.data_path.reaching import DEFAULT_MAX_LAG, Reach, reach
from echo_torch.diagnosis.watching.beginnings import changed_on_the_way
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.observed import Observed, UnknownError
from echo_torch.diagnosis.watching.recorded import Call, are_of_one_pass
from echo_torch.diagnosis.watching.sources import sources_of
from echo_torch.errors import RuleError, suggest

_LARGEST = " (none above is looked at)"  # else the list seems to end where a row has read no further back


def reach_seen(
    own: Sequence[Call], seen: Calls, rows: HandOvers, lag: int | None, vocabulary_size: int | None, max_lag: int
) -> Reach:
    """What the rows of a layer had read, as of `reach`, over the calls that were watched.

    Args:
        own: The calls of the layer.
        seen: All that was seen.
        rows: The hand-overs of the layer.
        lag: As of `reach`.
        vocabulary_size: As of `reach`.
        max_lag: As of `reach`.

    Raises:
        UnknownError: If it cannot be said.
        RuleError: As of `reach`.
    """
    chunks = Observed(own, seen, rows).chunks
    if not chunks:
        raise UnknownError("it was not called in training")
    stamps = [chunk.stamps() for chunk in chunks]
    found = reach(
        stamps, lag, vocabulary_size=vocabulary_size, max_lag=max_lag, is_repeated=False, stamps=lambda one: one
    )
    if any(chunk.has_moved for chunk in chunks):  # of the lanes some have nothing to read in each chunk
        numbers = Counter(len(chunk.lanes) for chunk in chunks)
        found = replace(found, rows=dict(sorted(numbers.items())), row_changes=0, first_row_change=None)
    return replace(found, is_whole=seen.first_skipped is None)


def steps_of_a_gradient(own: Sequence[Call], seen: Calls) -> int | None:
    """How many steps a gradient goes back at most: those of the calls through which the state's graph leads.

    Returns:
        None where it is unknown, or where the graph leads into a call that another backward pass has reached.
    """
    steps: dict[int, int] = {}  # of each call, back to where its graph begins
    changed = changed_on_the_way(own, seen.calls)
    for call in own:
        if not call.trains or call.is_remembered:
            continue
        if call.standing is None or call.number in changed:
            return None
        steps[call.number] = call.standing.num_steps
        before = [seen.calls[source.call] for source in sources_of(call)] if call.entering.has_graph else []
        for one in before:
            if one.layer == call.layer and one.root != call.root and not are_of_one_pass(one, call):
                return None
        steps[call.number] += max((steps.get(one.number, 0) for one in before), default=0)
    return max(steps.values(), default=None)


def reach_in_words(name: str, own: Sequence[Call], seen: Calls, rows: HandOvers) -> list[str]:
    """A sentence on reach and horizon, in the words of `reach`; none where the reach is unknown."""
    try:
        found = reach_seen(own, seen, rows, None, None, DEFAULT_MAX_LAG)
    except UnknownError:
        return []
    own_calls = {call.number for call in own}
    carries = any(call.trains and not own_calls.isdisjoint(call.entering.calls) for call in own)  # else there is no gap
    asked = ("gap: ", "reachable lags: ") if carries else ("reachable lags: ",)
    said = [line for line in reach_lines(found) if line.startswith(asked)]
    if found.reachable_lags[-1:] == [DEFAULT_MAX_LAG]:
        said[-1] += _LARGEST
    if (steps := steps_of_a_gradient(own, seen)) is not None:
        said.append(f"horizon: {steps:,} step{'' if steps == 1 else 's'}")
    return [f"{name}: {'; '.join(said)}."]


def number_of(layer: str | None, names: Sequence[str]) -> int:
    """The number of a layer, by its name.

    Raises:
        RuleError: If there is no such layer, or several and none is named.
    """
    if layer is None and len(names) == 1:
        return 0
    if names.count(layer or "") == 1:
        return names.index(layer or "")
    if not names:
        rule, reason = "$layer must be a recurrent layer that was called", "and none was"
        raise RuleError("layer", rule, repr(layer), reason=reason, way_out="train inside of `watch`, then ask")
    known = ", ".join(names)
    rule = "$layer must name one of the recurrent layers that were called"
    way_out = f"they are {known}{suggest(layer, names) if layer else ''}"
    raise RuleError("layer", rule, repr(layer), way_out=way_out)
