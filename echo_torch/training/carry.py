"""The carried state of any training: handed on, detached, reset, and kept in a checkpoint."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from echo_torch.errors import RuleError, suggest
from echo_torch.models.state import StateForm, check_starts, pack_state
from echo_torch.randomness import random_state, restore_random_state
from echo_torch.ranks import gather, num_ranks, own_rank

STAGES = ("training", "sanity_check", "validation", "test", "prediction")
_LIGHTNING = {"train": "training", "validate": "validation", "predict": "prediction"}  # its words, where they differ
_STAGE_OF = {**{stage: stage for stage in STAGES}, **_LIGHTNING}


_Ranks: TypeAlias = "list[tuple[list[Any] | None, dict[str, Any]]]"  # of each its state and random state


class CarryWarning(UserWarning):
    """A state is dropped, or belongs elsewhere, where one would expect it to be carried."""


class Carry:
    """Carries a state from batch to batch, for any LightningModule and any loop of one's own.

        carry = Carry(model.initial_state)
        for starts, inputs, targets in batches:
            state = carry.begin(starts)
            outputs, state = model(inputs, state)
            carry.end(state)
            ...                                     # loss, backward and optimiser as ever

    `begin` gives the state that the batch before left, with the lanes reset that start; `end` keeps it, detached. A
    training, its sanity check, validations, tests and predictions have a state each, and none sees another's.

    >>> import torch
    >>> carry = Carry(lambda num_lanes: torch.zeros(num_lanes, 1))
    >>> for starts in ([True, True], [False, True]):
    ...     state = carry.begin(torch.tensor(starts))
    ...     carry.end(state + 1)
    >>> carry.state().flatten().tolist()
    [2.0, 1.0]

    Where a training goes on from a checkpoint that holds `state_dict()`, it goes on exactly: with each rank's state
    and random state. All ranks call `state_dict`, from a checkpoint hook for instance. Where the weights of a
    checkpoint begin another training, `forget()` begins it with nothing remembered; `forget("validation")` does so at
    the start of each validation whose first batch does not reset all lanes.

    Args:
        initial_state: number of lanes -> the state of lanes that have read nothing. A state is a tensor, or any nesting
            of tuples, named tuples, lists and dicts of tensors; None and numbers pass through.
        lane_axes: Which axis of the tensors counts the lanes: one number for all, or numbers nested as the state is,
            None for a tensor without lanes. None: found by comparing the states of two and of three lanes.

    Attributes:
        cursor: The number of the batch that the training reads next, as `end` was told; 0 at first.
    """

    def __init__(self, initial_state: Callable[[int], Any], *, lane_axes: Any = None) -> None:
        if not callable(initial_state):
            raise RuleError(
                "initial_state",
                "$initial_state must be a function of the number of lanes",
                type(initial_state).__name__,
                way_out="hand over `model.initial_state` itself, without calling it",
            )
        self._form = StateForm(initial_state, lane_axes)
        self._has_learned = self._is_warned = False
        self.forget()

    def forget(self, stage: str | None = None) -> None:
        """Begin anew: the next batch begins with lanes that have read nothing.

        Args:
            stage: One of `STAGES`; None: all of them, and the cursor is 0 again.

        Raises:
            RuleError: If there is no such stage.
        """
        if stage is None:
            self._states: dict[str, Any] = {}
            self._lanes_of: dict[str, int] = {}  # of those that were checked
            self._restored: _Ranks | None = None  # what a checkpoint holds, until the training goes on
            self._is_resumed = False  # whether the training's next batch is its first after a checkpoint
            self.cursor = 0
        else:
            self._states.pop(_checked_stage(stage), None)
        self._stage: str | None = None  # of the last batch that was begun
        self._num_lanes = 0  # in it
        self._is_open = False  # whether it was not ended yet

    def state(self, stage: str = "training") -> Any:
        """The state that the next batch of a stage begins with, before any reset; None before the first.

        Raises:
            RuleError: If there is no such stage.
        """
        stage = _checked_stage(stage)
        if stage == "training" and self._restored is not None:
            return self._unpack(self._restored)
        return self._states.get(stage)

    def set_state(self, state: Any, stage: str = "training") -> None:
        """Let the next batch of a stage begin with another state than the last one left; None: with a first one.

        Raises:
            RuleError: If there is no such stage.
        """
        stage = _checked_stage(stage)
        self._states.pop(stage, None)
        self._lanes_of.pop(stage, None)
        if state is not None:
            self._states[stage] = state
        if stage == "training":
            self._restored, self._is_resumed = None, False

    def go_on(self) -> None:
        """Take up the state and the random state of a checkpoint that was loaded; the first `begin` does it otherwise.

        It is worth calling, when the loader has been made, where something draws random numbers between two batches,
        such as an augmentation: from Lightning's `on_train_start`.
        """
        restored, self._restored = self._restored, None
        if restored is not None:
            state = self._unpack(restored)
            self.set_state(state)
            self._is_resumed = state is not None
            # Not when it was loaded: making a loader draws random numbers, and the model was perhaps elsewhere.
            restore_random_state(restored[own_rank()][1])

    def begin(self, starts: Tensor, stage: str = "training") -> Any:
        """The state that a batch begins with.

        Args:
            starts: bool (lanes,), true where a lane's state is reset before the batch. It may live on the CPU.
            stage: One of `STAGES`, or a `trainer.state.stage` of Lightning.

        Returns:
            What the stage's last batch left, the starting lanes reset to `initial_state`'s values; before the first
            batch, and where all lanes start, `initial_state` of as many lanes as `starts` has.

        Raises:
            RuleError: If `starts` is not bool with one axis, or has other lanes than the state, or there is no such
                stage.
            RuleError: If only some lanes start, and a tensor of the state has no axis for lanes.
        """
        stage = _STAGE_OF.get(stage) or _checked_stage(stage)
        if self._is_open and self._stage == stage:
            self._warn_of_dropped_state(stage)
        if stage == "training":
            self._look_at_gradients()
            self.go_on()
        if self._is_resumed and stage == "training":
            self._is_resumed = False
            self._form.check(self._states[stage], len(starts))  # also where all lanes begin anew
        check_starts(starts)
        self._num_lanes = len(starts)
        if stage not in self._states:
            state = self._form.fresh(self._num_lanes)
        elif starts.any() or self._lanes_of.get(stage) != self._num_lanes:
            state = self._form.reset(self._states[stage], starts)
        else:  # almost every batch, at a third of the cost
            state = self._states[stage]
        self._stage, self._is_open = stage, True
        return state

    def end(self, state: Any, *, cursor: int | None = None) -> None:
        """Keep the state that a batch left, detached, for the batch after it.

        Args:
            state: What came out of the model.
            cursor: The number of the batch that the training reads next; None: it stays as it is.

        Raises:
            RuleError: If no batch was begun, or a cursor is given outside the training.
            RuleError: If it is no state as `initial_state` makes them, with the lanes that were begun with.
        """
        stage = self._stage
        if stage is None:
            rule = "$state has no batch that it could belong to"
            raise RuleError("state", rule, "`end` before any `begin`", way_out="call `begin(starts)` before the model")
        if cursor is not None:
            self.cursor = _checked_cursor(cursor, stage)
        self._states[stage] = self._form.detach(state, self._num_lanes)
        self._lanes_of[stage], self._is_open = self._num_lanes, False

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, as plain values: the cursor, and of every rank the state and random state.

        All ranks must call it.
        """
        if self._restored is not None:  # nothing has happened since
            ranks = [{"carry": leaves, "random": random} for leaves, random in self._restored]
            return {"cursor": self.cursor, "ranks": ranks}
        state = self._states.get("training")
        own = {"carry": None if state is None else pack_state(state), "random": random_state()}
        return {"cursor": self.cursor, "ranks": gather(own)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was; the random state returns with the first batch that the training begins.

        Args:
            state_dict: What `state_dict` gave.

        Raises:
            RuleError: If it was written by another number of ranks, or by a model with another state.
        """
        try:
            ranks, cursor = [(rank["carry"], rank["random"]) for rank in state_dict["ranks"]], state_dict["cursor"]
        except (KeyError, TypeError):
            rule = "$state_dict must be what `state_dict()` of a Carry gave"
            got = f"a dict with {', '.join(map(str, state_dict)) or 'nothing'}" if isinstance(state_dict, dict) else ""
            raise RuleError("state_dict", rule, got or type(state_dict).__name__) from None
        self.forget()
        self._restored, self.cursor = ranks, cursor
        if len(ranks) == num_ranks():
            self._unpack(ranks)  # refused now, not when the data are there

    def _unpack(self, ranks: _Ranks) -> Any:
        """This rank's state; refused here alone, so that a model can be tested by another number of processes."""
        if len(ranks) != num_ranks():
            raise RuleError(
                "devices",
                "$devices must be as when the checkpoint was written",
                f"{num_ranks()}, and a checkpoint of {len(ranks)}",
                reason="because each rank carries its own lanes",
            )
        leaves, _ = ranks[own_rank()]
        return None if leaves is None else self._form.unpack(leaves)

    def _look_at_gradients(self) -> None:
        """Warn, once, of a training's batch that records no gradient after others did: it may be a validation's."""
        if torch.is_grad_enabled():
            self._has_learned = True
        elif self._has_learned and not self._is_warned:
            self._is_warned = True
            warnings.warn(
                "A batch of the training was begun where no gradient is recorded, and the training goes on with the "
                'state that it leaves. If it is a validation\'s, say so: `begin(starts, stage="validation")`.',
                CarryWarning,
                stacklevel=4,
            )

    def _warn_of_dropped_state(self, stage: str) -> None:
        warnings.warn(
            f"A batch of the {stage} was begun but not ended, so the state that it left is dropped and the next one "
            "begins where it began. Call `end(state)` after the model; where a batch was skipped, nothing is wrong.",
            CarryWarning,
            stacklevel=3,
        )


def _checked_cursor(cursor: Any, stage: str) -> int:
    try:
        number = operator.index(cursor)  # also of a tensor, which a loader makes of a number
    except TypeError:
        number = -1
    if stage != "training" or isinstance(cursor, bool) or number < 0:
        rule = "$cursor must be the number of the batch that the training reads next, a whole number >= 0"
        raise RuleError("cursor", rule, f"{cursor!r} in {stage}")
    return number


def _checked_stage(stage: str) -> str:
    if stage not in _STAGE_OF:
        raise RuleError("stage", f"$stage must be one of {', '.join(STAGES)}", f"{stage!r}{suggest(stage, STAGES)}")
    return _STAGE_OF[stage]
