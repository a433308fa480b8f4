"""What is recorded of a call of a recurrent layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from echo_torch.diagnosis.stamps import CheckedStamps
from echo_torch.diagnosis.watching.lanes import Origin
from echo_torch.diagnosis.watching.padding import Padded
from echo_torch.diagnosis.watching.standing import Even, Standing, Uneven


@dataclass(slots=True)
class Entering:
    """What enters a call, lane by lane.

    Attributes:
        is_given: Whether a state is handed in at all.
        num_lanes: How many lanes the state has; 0 without one.
        is_filled: Whether any lane is other than zero.
        is_half_empty: Whether all lanes of one of its tensors are zero, and some of the other are not.
        origins: Of each field and lane, where it comes from; None where no call has left it, or it is zero.
        calls: The numbers of the calls that left any of its lanes.
        empty_lanes: Lanes that are zero in all fields.
        has_graph: Whether a gradient would go back through it.
        made: Of a state that the model has made, a number by which it is known again, however many lanes it is for.
        strange: What a state of training is that no call has left, as far as it is known: as of
            `Strangers.what`.
    """

    is_given: bool = False
    num_lanes: int = 0
    is_filled: bool = False
    is_half_empty: bool = False
    origins: Sequence[Sequence[Origin | None]] = ()
    calls: Set[int] = frozenset()
    empty_lanes: Sequence[int] = ()
    has_graph: bool = False
    made: int | None = None
    strange: str | None = None


@dataclass(slots=True)
class Unwatched:
    """Calls of which only those around a border were recorded.

    Attributes:
        first: The number that the first one would have had that was not.
        update: How many optimiser steps had been made then.
        new_passes: How many passes of a loader over the same data again were watched where they began.
    """

    first: int
    update: int
    new_passes: int = 0


@dataclass(slots=True)
class Call:
    """One call of a recurrent layer.

    Attributes:
        number: Of all calls.
        layer: The layer's number among those that were called.
        root: The number of the outermost call of a module in which it is.
        update: How many optimiser steps had been made.
        trains: Whether the layer is in training mode and gradients are recorded.
        is_training: Whether the layer is in training mode.
        num_rows: Rows of its input; 0 where it has none.
        entering: What enters it.
        is_remembered: Whether it was not watched itself, but the call before one that is: only its state is known.
        told: What somebody has said last of where rows stand; None: nobody has.
        num_steps: Steps of its input; 0 where its places are unknown.
        is_step: Whether its input is a single step.
        padded: The padding that it reads, while it trains; None: none is known.
        reached: How many optimiser steps had been made when a gradient first came back to it; None: none has yet.
        reached_before: The number that the next call had then.
        reaches_back: Of each gradient that has gone through the state that enters it to a call that had one before: the
            optimiser steps that had been made when that call had its first, and now.
        is_exchanged: Whether a view has exchanged axes of what it reads without moving the values.
        takes_last_row: Whether the last row of its output has been taken alone.
    """

    number: int
    layer: int
    root: int
    update: int
    trains: bool
    is_training: bool
    num_rows: int
    entering: Entering
    is_remembered: bool = False
    _standing: Standing | Even | Uneven | None = None
    told: CheckedStamps | None = None
    num_steps: int = 0
    is_step: bool = False
    padded: Padded | None = None
    reached: int | None = None
    reached_before: int | None = None
    reaches_back: tuple[tuple[int, int], ...] = ()
    is_exchanged: bool = False
    takes_last_row: bool = False

    @property
    def standing(self) -> Standing | None:
        """Where its rows stand; None: unknown."""
        if isinstance(self._standing, (Even, Uneven)):
            self._standing = self._standing.standing()
        return self._standing

    def stand(self, standing: Standing | Even | Uneven | None, num_steps: int) -> None:
        """It is known where its rows stand."""
        self._standing, self.num_steps = standing, num_steps


def by_root(calls: Iterable[Call]) -> dict[int, list[Call]]:
    """Calls by the outermost call of a module in which they are."""
    found: dict[int, list[Call]] = {}
    for call in calls:
        found.setdefault(call.root, []).append(call)
    return found


def are_of_one_pass(one: Call, other: Call) -> bool:
    """Whether the first gradients of two calls came in one backward pass, made when both had been made."""
    return one.reached is not None and (one.reached, one.reached_before) == (other.reached, other.reached_before)
