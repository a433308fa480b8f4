"""A model at work under the probe: begun, called and handed on, each reading from the same module and the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_torch.diagnosis.probing.calling import Call, ModelRaisedError, in_one_line
from echo_torch.diagnosis.probing.inputs import Inputs
from echo_torch.diagnosis.probing.keeping import ModelKept
from echo_torch.diagnosis.probing.states import HandedState, HeldState
from echo_torch.errors import RuleError
from echo_torch.models.state import detach_state, leaves_of, with_leaves


class ResetUnknownError(Exception):
    """Single lanes cannot be reset, so nothing can be said about it."""


class Reader:
    """A model that reads chunks.

    Args:
        model: The model.
        kept: What it held before.
        call: How it is called.
        place: Where its state is.
        carry: (state, starts) -> the state for the next chunk; None: detached and reset, or the module does it itself.
    """

    def __init__(
        self,
        model: Any,
        kept: ModelKept,
        call: Call,
        place: HandedState | HeldState,
        carry: Callable[[Any, Tensor], Any] | None,
    ) -> None:
        self.model, self.place = model, place
        self._kept, self._call, self._carry = kept, call, carry

    @property
    def can_reset(self) -> bool:
        """Whether there is anything that resets single lanes."""
        return self._carry is not None or isinstance(self.place, HandedState)

    @property
    def is_own_carry(self) -> bool:
        """Whether the user says how the state is handed on."""
        return self._carry is not None

    def again(self, *, is_seeded: bool = True) -> None:
        """Put the module and the generators where every reading begins."""
        self._kept.restore(generators=is_seeded)
        if is_seeded:
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)

    def begin(self, num_lanes: int) -> Any:
        """The state of lanes that have read nothing, as it is handed to the model."""
        try:
            return _copied(self.place.begin(num_lanes))
        except Exception as error:  # whatever somebody's model does
            raise ModelRaisedError(f"its first state for {num_lanes} lanes raised {in_one_line(error)}") from error

    def step(self, inputs: Any, state: Any, shapes: str) -> tuple[Any, Any]:
        """Outputs of one chunk, and the state that it leaves.

        Raises:
            ModelRaisedError: If the model raises.
            RuleError: If what comes back makes no sense.
        """
        try:
            result = self._call.run(self.model, _copied(inputs), state)  # which it may change in place
        except Exception as error:  # whatever somebody's model does
            raise ModelRaisedError(f"the model raised {in_one_line(error)} at inputs of shape {shapes}") from error
        outputs, returned = self._call.part(result)
        return outputs, self.place.left(returned)

    def hand_over(self, state: Any, starts: Tensor) -> Any:
        """What a training does between two chunks; the state as it is handed to the model.

        Raises:
            ModelRaisedError: If the user's `carry` raises, or the state is not one that can be handed on.
            ResetUnknownError: If lanes start and nothing says how one is reset.
        """
        if self._carry is not None:
            try:
                return self.place.hand(self._carry(state, starts))
            except Exception as error:
                raise ModelRaisedError(f"`carry` raised {in_one_line(error)} with {len(starts)} lanes") from error
        if isinstance(self.place, HeldState):
            return None
        try:
            _ = self.place.form.lane_axes
        except (RuleError, ModelRaisedError) as error:
            if bool(starts.any()):
                why = str(error)
                if isinstance(error, ModelRaisedError):
                    why = f"2 and 3 lanes would tell where they stand in the state, and {why}; give `carry`"
                raise ResetUnknownError(why) from error
            return detach_state(state)
        try:
            return self.place.form.reset(detach_state(state), starts)
        except RuleError as error:
            kind = ResetUnknownError if bool(starts.any()) else ModelRaisedError
            raise kind(f"its state cannot be handed on: {error}") from error


def _copied(nested: Any) -> Any:
    leaves = leaves_of(nested)
    return with_leaves(nested, [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves])


def left_by(reader: Callable[[], Reader], inputs: Inputs, num_steps: int) -> Callable[[int], Any]:
    """A function: number of lanes -> the state after a chunk from no state; each number is read once."""
    known: dict[int, Any] = {}

    def left(num_lanes: int) -> Any:
        if num_lanes not in known:
            chunk = inputs.make(num_lanes, num_steps)
            with torch.no_grad():
                _, known[num_lanes] = reader().step(chunk, reader().begin(num_lanes), inputs.in_words(chunk))
        return known[num_lanes]

    return left
