"""What is said of a state that belongs elsewhere: stopped, warned of once, or counted in silence."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from echo_torch.data.chunk_text import runs_in_words
from echo_torch.diagnosis.data_path.reaching import reach
from echo_torch.diagnosis.stamps import Stamps
from echo_torch.errors import RuleError

POLICIES = ("raise", "warn", "count")


class StateError(RuntimeError):
    """A lane's carried state belongs to another place than its next chunk."""


class StateWarning(UserWarning):
    """A lane's carried state belongs to another place than its next chunk, and the training goes on."""


class StateNote(UserWarning):
    """What is no fault but worth knowing: no state is carried, or it cannot be seen."""


class Voice:
    """Says what is found, each kind of it once.

    Args:
        policy: As of `StateAudit`.

    Attributes:
        notes: As of `StateAudit`.

    Raises:
        RuleError: If the policy is unknown.
    """

    def __init__(self, policy: str) -> None:
        if policy not in POLICIES:
            raise RuleError("policy", f"$policy must be one of {', '.join(POLICIES)}", repr(policy))
        self.policy = policy
        self.notes: list[str] = []
        self._said: set[str] = set()

    def is_awaited(self, kind: str) -> bool:
        """Whether anybody would read the words of a fault of this kind."""
        return self.policy == "raise" or (self.policy == "warn" and kind not in self._said)

    def report(self, kind: str, text: str) -> None:
        """Say a fault.

        Args:
            kind: Of which one is said.
            text: A sentence or more; it may be empty where nobody awaits it.

        Raises:
            StateError: Under the policy "raise".
        """
        if self.policy == "raise":
            raise StateError(text)
        if self.is_awaited(kind):
            warnings.warn(text, StateWarning, stacklevel=2)
        self._said.add(kind)

    def note(self, kind: str, text: str) -> None:
        """Say what is no fault; arguments as of `report`."""
        if kind in self._said:
            return
        self._said.add(kind)
        self.notes.append(text)
        if self.policy != "count":
            warnings.warn(text, StateNote, stacklevel=2)


def border_in_words(
    lane: int,
    ends_at: tuple[int, int],
    begins_at: int,
    *,
    gap: int | None,
    lanes: tuple[int, int],
    is_new_pass: bool,
    is_reset_seen: bool,
    recent: Iterable[Stamps],
) -> str:
    """What is wrong at a border.

    Args:
        lane: One of those in which it is.
        ends_at: The last step that the lane's state has read, and its sequence.
        begins_at: The first step of its next chunk.
        gap: The steps between them; None: the chunk begins in another sequence.
        lanes: In how many lanes, and of how many.
        is_new_pass: Whether the loader begins anew with this chunk.
        is_reset_seen: Whether a reset inside the training step would be seen.
        recent: The stamps of the last batches, of which it is said what the rows have reached.
    """
    lags = runs_in_words(reach(recent, 0, stamps=lambda stamps: stamps).reachable_lags)
    begin = "its next chunk" + (", the first of a new pass of the loader," if is_new_pass else "")
    if gap is None:
        what = f"{begin} begins in another sequence, at step {begins_at}, without a reset"
        what += "" if is_reset_seen else " that can be seen"
    else:
        number = f"{abs(gap)} step{'s' * (abs(gap) > 1)}"
        passed = f"{number} {'is' if abs(gap) == 1 else 'are'} {'skipped' if gap > 0 else 'read twice'}"
        what = f"{begin} begins at step {begins_at}: {passed}"
    others = f" ({lanes[0]} of {lanes[1]} lanes)" if lanes[0] > 1 else ""
    way_out = " Reset the state where a pass begins." if is_new_pass else ""
    if gap is None and not is_reset_seen:
        way_out += (
            " If the training step itself resets such lanes, let the stamps say so: Stamps(step=..., starts=...)."
        )
    return (
        f"Lane {lane}'s carried state ends at step {ends_at[0]} of sequence {ends_at[1]}, so step {ends_at[0] + 1} is "
        f"expected, but {what}{others}. Lags that the rows have reached so far: {lags}.{way_out}"
    )


def other_lanes(num_before: int, num_now: int) -> str:
    """What is wrong where a batch has other lanes than the state."""
    return (
        f"The batch has {num_now} lanes but the carried state has {num_before}; a state that is cut or filled up "
        "belongs to nobody. Keep the number of rows, and leave rows unused."
    )


def none_is_carried(num_batches: int) -> str:
    """What is worth knowing where every batch begins without a state."""
    return (
        f"No state is carried: none of the {num_batches} batches so far has begun with what the batch before it left. "
        "This is right where each batch holds whole sequences; where its rows go on in the next batch, hand the state "
        "over."
    )


NOT_THE_ONE_LEFT = (
    "The carried state is not the one that the last training batch left: something else wrote it in between, such as a "
    "validation on the same state. Keep a state for each, or save and restore it."
)
LEFT_BY_ANOTHER = (
    "The state that enters a recurrent layer is the one that something else left there after the last training batch, "
    "such as a validation on the same state. Keep a state for each, or save and restore it."
)
OF_THE_SANITY_CHECK = (
    "The state that the training begins with is the one that the sanity check left: a validation on the same state. "
    "Keep a state for each, or save and restore it."
)
UNKNOWN = (
    "The state that enters a recurrent layer is neither empty nor the one that the last training batch left there, so "
    "it is unknown whether it is carried, and such lanes are not compared. Show the carried state: "
    "StateAudit(state=lambda module: module.hidden)."
)
UNSEEN_STATE = (
    "The carried state cannot be seen: the module has no `carry`, and no recurrent layer of torch.nn is heard, because "
    "none is called, or only inside a compiled or scripted model. So it stays unknown whether the training step resets "
    "it or a validation writes it; only the places of the rows are compared. Show it: StateAudit(state=lambda module: "
    "module.hidden)."
)
