"""Recurrent state as a plain value.

A state is a NamedTuple of tensors with lanes on axis 1. The functions here work on any such tuple, field by
field, so a GRU or a stack of one's own needs no code of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from echo_torch.errors import RuleError


class LSTMState(NamedTuple):
    """What an LSTM remembers.

    Attributes:
        hidden: (layers, lanes, hidden_size), the output of the last step.
        cell: (layers, lanes, hidden_size), the memory behind it.
    """

    hidden: Tensor
    cell: Tensor


class HiddenState(NamedTuple):
    """What a GRU or a plain recurrent network remembers.

    Attributes:
        hidden: (layers, lanes, hidden_size), the output of the last step.
    """

    hidden: Tensor


class WindowState(NamedTuple):
    """What a network without recurrence remembers: the inputs of the last steps, as they were read.

    Attributes:
        inputs: (steps, lanes, input_size), the latest last; zeros where nothing was read.
    """

    inputs: Tensor


State = TypeVar("State", bound="tuple[Tensor, ...]")


class RecurrentModel(Protocol[State]):
    """What the training and the evaluation ask of a model; `EchoLSTM` is one."""

    def __call__(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (lanes, steps, vocabulary_size), or as its `encoding` says, and the state after the last step."""
        ...

    def initial_state(self, num_lanes: int) -> State:
        """The state of lanes that have read nothing yet."""
        ...


def detach_state(state: State) -> State:
    """A state with these values but without their history: no gradient goes back through them."""
    return _map(Tensor.detach, state)


def reset_state(state: State, starts: Tensor) -> State:
    """Zero the state of chosen lanes and leave the others alone.

    A masked fill, not a product with 0: a lane that holds NaN is cured, and its neighbours never see it.

    Args:
        state: Tensors with lanes on axis 1.
        starts: bool (lanes,), true where the lane is reset. It may live on the CPU whatever the state's device.

    Returns:
        A state of the same shapes; the very same object where no lane is reset.

    Raises:
        RuleError: If `starts` is not bool.
        RuleError: If `starts` is not one value for each lane.
    """
    if starts.dtype != torch.bool:
        raise RuleError("starts", "$starts must be bool, true where a lane is reset", f"dtype {starts.dtype}")
    num_lanes = state[0].shape[1]
    if starts.shape != (num_lanes,):
        raise RuleError(
            "starts",
            f"$starts must hold one value for each of the state's {num_lanes} lanes",
            f"shape {tuple(starts.shape)}",
        )
    if not starts.any():
        return state
    # The mask gets its own axes for layers and features: without them it would broadcast over the features
    # whenever lanes == hidden_size.
    mask = starts.to(state[0].device).view(1, num_lanes, 1)
    return _map(lambda field: field.masked_fill(mask, 0), state)


def _map(function: Callable[[Tensor], Tensor], state: State) -> State:
    fields = [function(field) for field in state]
    make = getattr(state, "_make", tuple)
    return cast(State, make(fields))
