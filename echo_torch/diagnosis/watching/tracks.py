"""The rows of a layer as they were seen, call by call, to be drawn: what is unknown of them is unknown there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.beginnings import empty_lanes_of
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.recorded import Call
from echo_torch.diagnosis.watching.sources import origins_of
from echo_torch.diagnosis.watching.standing import array_of

EMPTY, MADE, KNOWN, STRANGE = "empty", "made", "known", "strange"  # where the state of a row comes from


class Track(NamedTuple):
    """One row of a call.

    Attributes:
        steps: Of each column the step that is read, counted from 0 where the row began, or as somebody has said; None
            where it is unknown, -1 where nothing is read.
        begins: How its state begins: EMPTY, MADE by the model or by another layer, KNOWN from an earlier call of the
            layer, or STRANGE, from no call.
        origin: The call and the row that left its state, if it is KNOWN.
        gaps: Of each column the steps between what was read before and what is read there, or "other"; None where that
            is unknown, or nothing is read, or nothing was before.
    """

    steps: list[int | None]
    begins: str
    origin: tuple[int, int] | None
    gaps: list[int | str | None]

    @property
    def first(self) -> int | None:
        """The first column in which something is read; None: in none."""
        return next((column for column, step in enumerate(self.steps) if step != -1), None)

    @property
    def gap(self) -> int | str | None:
        """Of the first column in which something is read."""
        return None if self.first is None else self.gaps[self.first]


class SeenCall(NamedTuple):
    """A call of a layer.

    Attributes:
        number: Of all calls.
        root: The number of the call of the whole model.
        trains: Whether it is a call of the training.
        tracks: Its rows.
    """

    number: int
    root: int
    trains: bool
    tracks: list[Track]


class _Stand(NamedTuple):
    step: int
    place: int


def tracks_of(own: Sequence[Call], seen: Calls, hand_overs: HandOvers) -> list[SeenCall]:
    """The calls of a layer that were watched, in their order.

    Args:
        own: The calls of the layer.
        seen: All that was seen.
        hand_overs: Those of the layer.
    """
    stands: dict[tuple[int, int], _Stand | None] = {}  # where each row of each call stopped, as far as it is known
    return [
        SeenCall(call.number, call.root, call.trains, _tracks(call, seen, hand_overs, stands))
        for call in own
        if call.num_rows and (seen.first_skipped is None or call.number < seen.first_skipped)
    ]


def _tracks(
    call: Call, seen: Calls, hand_overs: HandOvers, stands: dict[tuple[int, int], _Stand | None]
) -> list[Track]:
    known, empty, tracks = dict(origins_of(call)), set(empty_lanes_of(call)), []
    standing = call.standing
    places, width = ([], 0) if standing is None else (standing.of_all_steps().tolist(), standing.width)
    for row in range(call.num_rows):
        origin = (known[row].call, known[row].lane) if row in known else None
        begins = EMPTY if row in empty else MADE if call.entering.has_graph else STRANGE
        if origin is not None:
            begins = KNOWN if seen.calls[origin[0]].layer == call.layer else MADE
        before = stands.get(origin) if begins == KNOWN and origin is not None else None
        steps, gaps, stands[call.number, row] = _read(places[row] if places else None, width, before, hand_overs, seen)
        tracks.append(Track(steps, begins, origin if begins == KNOWN else None, gaps))
    return tracks


def _read(
    places: Sequence[int] | None, width: int, before: _Stand | None, hand_overs: HandOvers, seen: Calls
) -> tuple[list[int | None], list[int | str | None], _Stand | None]:
    """The step of each column, the gap before it, and where the row stops."""
    if places is None:
        return [None], [None], None
    steps: list[int | None] = []
    gaps: list[int | str | None] = []
    for place in places:
        is_read = place >= ARRAY
        gap = hand_overs.gap(before.place, place, width) if before is not None and is_read else None
        gaps.append(gap)
        if not is_read:
            steps.append(-1)
            continue
        step = place % ARRAY if seen.places.arrays.is_named(array_of(place)) else 0
        if before is not None and isinstance(gap, int):
            step = before.step + 1 + gap
        before = _Stand(step, place)
        steps.append(step)
    return steps, gaps, before
