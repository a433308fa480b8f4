"""Does a model's state do what a state must? Found by changing one symbol, without any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from echo_torch.errors import RuleError
from echo_torch.models.state import (
    RecurrentModel,
    StateForm,
    detach_state,
    initial_state_of,
    leaves_of,
    reset_state,
    with_leaves,
)

FAULTS = {
    "rows are mixed": "within a chunk, changing one lane's symbol moves another lane's outputs: lanes and steps are "
    "swapped somewhere (batch_first?), or something is averaged over the batch",
    "time runs backwards": "changing a symbol moves outputs of earlier steps",
    "state is not carried": "changing a lane's last symbol moves nothing in its next chunk: the state is reset at "
    "every batch, or dropped",
    "lanes are mixed": "changing one lane's symbol moves another lane's outputs in the next chunk: the state is "
    "transposed, rolled or averaged over the batch",
    "reset is incomplete": "a lane that was reset still depends on what it read before: does the mask stand on the "
    "lanes' axis?",
    "reset hits others": "resetting one lane changes another lane's outputs: does the mask stand on the lanes' axis?",
    "gradient crosses the cut": "the loss of a chunk has a gradient in the chunk before: the state is not detached",
    "failed": "the model raised an error at these sizes",
}


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        faults: Names out of `FAULTS`, empty where all is well.
        influence: bool (probed lanes, lanes): whether changing the last symbol that a probed lane read moves each
            lane's outputs in the next chunk. Right is true for the lane itself and false elsewhere.
        probed_lanes: The lanes whose symbols were changed.
        gradient_crosses: Whether the next chunk's loss has a gradient in the chunk before.
        error: What the model raised, if it did.
    """

    faults: tuple[str, ...]
    influence: Tensor
    probed_lanes: tuple[int, ...]
    gradient_crosses: bool
    error: str = ""

    def lines(self) -> list[str]:
        """The faults for people."""
        return [f"{name}: {FAULTS[name]}" + (f" ({self.error})" if name == "failed" else "") for name in self.faults]


def hand_over(state: Any, starts: Tensor, initial_state: Callable[[int], Any] | None = None) -> Any:
    """What a training does between two chunks: detach, then reset the lanes that start, as `reset_state` does."""
    return reset_state(detach_state(state), starts, initial_state)


def probe(
    model: RecurrentModel[Any],
    vocabulary_size: int,
    *,
    carry: Callable[[Any, Tensor], Any] | None = None,
    num_lanes: int | None = None,
    num_steps: int | None = None,
    device: torch.device | str = "cpu",
) -> Probe:
    """Change one symbol at a time and see what moves.

    Two chunks are read, the state of the first handed to the second. As many lanes as the state has features, and
    as many steps as lanes, are read by default: there a mask or an axis in the wrong place raises no error, so there
    it must be looked for.

    >>> from echo_torch import EchoLSTM
    >>> probe(EchoLSTM(10, 4), vocabulary_size=10).faults
    ()
    >>> probe(EchoLSTM(10, 4), 10, carry=lambda state, starts: state).lines()[-1][:24]
    'gradient crosses the cut'

    Args:
        model: Anything with `forward(symbols, state) -> (logits, state)` and `initial_state(lanes)`.
        vocabulary_size: Symbols 0..n-1 are drawn, at least 2.
        carry: (state, starts bool (lanes,)) -> the state for the next chunk, as the training does it; None: as
            `EchoModule` and `Carry` do it.
        num_lanes: Rows; None: as many as the state has features, at least 3.
        num_steps: Columns; None: as many as lanes.
        device: Where the model is.

    Returns:
        The faults found, and which lanes moved.

    Raises:
        RuleError: If a number is too small to tell anything.
    """
    if vocabulary_size < 2:
        raise RuleError(
            "vocabulary_size", "$vocabulary_size must be at least 2, or no symbol can be changed", vocabulary_size
        )
    if num_lanes is not None and num_lanes < 2:
        raise RuleError("num_lanes", "$num_lanes must be at least 2, or there is no other lane to touch", num_lanes)
    if num_steps is not None and num_steps < 1:
        raise RuleError("num_steps", "$num_steps must be at least 1", num_steps)
    form = StateForm(initial_state_of(model))
    num_lanes = num_lanes or max(3, _num_features(form))
    carry = partial(_hand_over, form) if carry is None else carry
    bench = _Bench(model, carry, vocabulary_size, num_lanes, num_steps or num_lanes, device)
    lanes = tuple(dict.fromkeys((0, num_lanes // 2, num_lanes - 1)))
    try:
        with torch.no_grad():
            within, backwards = bench.move_within(lanes)
            influence = bench.move_across(lanes)
            incomplete, hits_others = bench.move_after_reset(lanes)
        crosses = bench.gradient_crosses()
    except Exception as error:  # whatever somebody's model does
        nothing = torch.zeros(len(lanes), num_lanes, dtype=torch.bool)
        return Probe(("failed",), nothing, lanes, False, f"{type(error).__name__}: {error}".splitlines()[0])
    own = torch.zeros_like(influence)
    own[torch.arange(len(lanes)), list(lanes)] = True
    found = {
        "rows are mixed": bool((within & ~own).any()),
        "time runs backwards": backwards,
        "state is not carried": not bool(influence[own].all()),
        "lanes are mixed": bool((influence & ~own).any()),
        "reset is incomplete": incomplete,
        "reset hits others": hits_others,
        "gradient crosses the cut": crosses,
    }
    return Probe(tuple(name for name, is_found in found.items() if is_found), influence, lanes, crosses)


def _hand_over(form: StateForm, state: Any, starts: Tensor) -> Any:
    return form.reset(detach_state(state), starts)


def _num_features(form: StateForm) -> int:
    """The last axis of the first tensor that has one beside that of the lanes; 0 where none has."""
    for leaf, axis in zip(leaves_of(form.fresh(1)), form.lane_axes, strict=True):
        if isinstance(leaf, Tensor) and (sizes := [size for place, size in enumerate(leaf.shape) if place != axis]):
            return sizes[-1]
    return 0


class _Bench:
    """A model, two chunks, and the ways to shake them."""

    def __init__(
        self,
        model: RecurrentModel[Any],
        carry: Callable[[Any, Tensor], Any],
        vocabulary_size: int,
        num_lanes: int,
        num_steps: int,
        device: torch.device | str,
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        self.model, self.carry, self.vocabulary_size, self.num_lanes = model, carry, vocabulary_size, num_lanes
        shape = (2, num_lanes, num_steps)
        self.first, self.second = torch.randint(vocabulary_size, shape, generator=draw).to(device)

    def change(self, symbols: Tensor, lane: int, step: int) -> Tensor:
        symbols = symbols.clone()
        symbols[lane, step] = (symbols[lane, step] + 1) % self.vocabulary_size
        return symbols

    def outputs(self, first: Tensor, second: Tensor, starts: Tensor | None = None) -> Tensor:
        """Logits of the second chunk, lanes first."""
        if starts is None:
            starts = torch.zeros(self.num_lanes, dtype=torch.bool)
        _, state = self.model(first, self.model.initial_state(self.num_lanes))
        logits, _ = self.model(second, self.carry(state, starts))
        return logits

    def move_within(self, lanes: tuple[int, ...]) -> tuple[Tensor, bool]:
        """Which lanes a symbol of the same chunk moves, and whether it moves earlier steps."""
        before = self.outputs(self.first, self.second)
        middle = self.second.shape[1] // 2
        differences = [
            (self.outputs(self.first, self.change(self.second, lane, middle)) != before).any(dim=-1) for lane in lanes
        ]
        backwards = any(bool(moved[lane, :middle].any()) for moved, lane in zip(differences, lanes, strict=True))
        return torch.stack([moved.any(dim=1) for moved in differences]).cpu(), backwards

    def move_across(self, lanes: tuple[int, ...]) -> Tensor:
        """Which lanes a symbol of the chunk before moves."""
        before = self.outputs(self.first, self.second)
        moved = [self.outputs(self.change(self.first, lane, -1), self.second) != before for lane in lanes]
        return torch.stack([difference.flatten(1).any(dim=1) for difference in moved]).cpu()

    def move_after_reset(self, lanes: tuple[int, ...]) -> tuple[bool, bool]:
        """Whether a reset lane still depends on its past, and whether the reset changes other lanes."""
        kept = self.outputs(self.first, self.second)
        incomplete = hits_others = False
        for lane in lanes:
            starts = torch.zeros(self.num_lanes, dtype=torch.bool)
            starts[lane] = True
            before = self.outputs(self.first, self.second, starts)
            after = self.outputs(self.change(self.first, lane, -1), self.second, starts)
            incomplete |= bool((after[lane] != before[lane]).any())
            hits_others |= bool((before != kept)[~starts].any())
        return incomplete, hits_others

    def gradient_crosses(self) -> bool:
        """Whether the second chunk's outputs have a gradient in the state that the first one left."""
        first = self.model.initial_state(self.num_lanes)
        _, state = self.model(self.first, with_leaves(first, map(_as_leaf_of_the_graph, leaves_of(first))))
        left = [leaf for leaf in leaves_of(state) if isinstance(leaf, Tensor) and leaf.requires_grad]
        logits, _ = self.model(self.second, self.carry(state, torch.zeros(self.num_lanes, dtype=torch.bool)))
        if not logits.requires_grad or not left:
            return False
        gradients = torch.autograd.grad(logits.square().sum(), left, allow_unused=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def _as_leaf_of_the_graph(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
        return leaf.detach().clone().requires_grad_()
    return leaf
