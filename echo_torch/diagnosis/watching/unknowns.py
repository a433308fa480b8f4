"""What a watch could not see of a layer, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from echo_torch.diagnosis.watching.axes import turns_in
from echo_torch.diagnosis.watching.beginnings import kind_of, steps_from_one_state
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.foreign import DRAWN
from echo_torch.diagnosis.watching.hand_overs import HandOvers, is_lost
from echo_torch.diagnosis.watching.leaks import leaks_in
from echo_torch.diagnosis.watching.recorded import Call

_OFTEN = 3  # draws, from which on they are no first state


def unknown_of(
    layer: int, own: Sequence[Call], first: Sequence[Call], seen: Calls, rows: HandOvers
) -> Iterator[str]:  # fmt: skip
    """What is not known of a layer's states, in sentences.

    Args:
        layer: Its number.
        own: Its calls.
        first: Those with which it begins.
        seen: All that was seen.
        rows: Its hand-overs.
    """
    yield from _of_places(first, rows, seen)
    yield from _of_ways(layer, own, first, seen)
    yield from _of_states(own, first, rows, seen)


def _of_places(first: Sequence[Call], rows: HandOvers, seen: Calls) -> Iterator[str]:
    """Where rows stand, and whether they go on."""
    if astray := sum(call.standing is None for call in first):
        yield (
            f"at {astray} of {len(first)} beginnings it is not known where the rows stand in the data, nor whether "
            "they go on where their states stopped: `reach_of` and `StateAudit` tell."
        )
    if rows.unknown:
        yield (
            f"at {rows.unknown:,} of {rows.unknown + rows.number:,} hand-overs it is not known whether a row goes "
            f"on where its state stopped, because {_why_unknown(rows, seen)}: `reach_of` and `StateAudit` tell."
        )
    if is_lost(rows.beginnings.unclear, rows):
        yield (
            f"at {rows.beginnings.unclear:,} places a row goes on without a state exactly where the call before "
            "stopped, in the same update or in the next part of an array: parts of a sample that are read each by "
            "itself look so, and samples that lie in batches, and a state that is lost."
        )


def _of_ways(layer: int, own: Sequence[Call], first: Sequence[Call], seen: Calls) -> Iterator[str]:
    """What may be meant to be so."""
    if alike := steps_from_one_state(own):
        yield (
            f"at {alike:,} single steps the state is that with which the step before began, and what that left is "
            "not handed on: a search that tries several steps from one state looks so, and a state that is lost."
        )
    if backwards := _goes_on_backwards(layer, first, seen):
        yield (
            f"at {backwards:,} of {len(first):,} beginnings the state of its backward direction goes on as well. "
            "It comes from the first step of a chunk and enters at the last step of the next: it is not known "
            "whether that is meant."
        )
    if turns := turns_in(own, seen):
        yield (
            f"its {turns:,} rows take turns, step by step, in one series: right where {turns:,} series were "
            f"recorded together, and wrong where it is one, which view({turns}, -1).t() cuts into {turns:,} rows."
        )


def _of_states(own: Sequence[Call], first: Sequence[Call], rows: HandOvers, seen: Calls) -> Iterator[str]:
    """Where states come from."""
    leaks = leaks_in(own, seen, rows)
    if leaks.unclear:
        yield (
            f"at {leaks.unclear} of {leaks.number} changes from evaluation to training the training goes on with "
            "the state that was left, and it is not known whether that belongs to its rows: a warm-up, or a leak."
        )
    strange = [call for call in first if kind_of(call) == "unknown"]
    drawn = sum(call.entering.strange == DRAWN for call in strange)
    if drawn >= _OFTEN:
        yield (
            f"at {drawn} of {len(first)} beginnings the state is random numbers that are drawn anew: it is not "
            "known whether that is meant."
        )
    if others := len(strange) - (drawn if drawn >= _OFTEN else 0):
        yield f"at {others} of {len(first)} beginnings the state is none that a call has left."


def _why_unknown(rows: HandOvers, seen: Calls) -> str:
    if rows.has_other_order:
        return "the samples stand in another order than that in which their values go on"
    if seen.places.has_unread:
        return "the batches are made on the way, or come from workers of a loader and cannot be read a second time"
    return "the batches are made on the way"


def _goes_on_backwards(layer: int, first: Sequence[Call], seen: Calls) -> int:
    """At how many beginnings a layer that reads in both directions goes on with what it has left itself."""
    if not getattr(seen.layers[layer], "bidirectional", False):
        return 0
    return sum(any(seen.calls[number].layer == layer for number in call.entering.calls) for call in first)
