"""What enters and leaves the recurrent layers of somebody's module, while it trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from echo_torch.diagnosis.auditing.borders import Flags
from echo_torch.diagnosis.auditing.snapshots import equal_lanes, filled_lanes
from echo_torch.diagnosis.hooks import remove_hook
from echo_torch.models.state import detach_state, leaves_of

_KEPT_CALLS = 4  # of each layer in each batch: a step may read several things with it


class Heard(NamedTuple):
    """What the first call of each recurrent layer in a batch has shown.

    Booleans (lanes,), true where any layer shows it.

    Attributes:
        is_carried: What enters is what the last training batch left there.
        is_foreign: It is what something else left there since, such as a validation.
        is_made: It is none of both, and the model has made it, since it has a gradient: in an encoder, say, or out of a
            carried state.
        is_unknown: It is none of all these, and neither empty, nor alike in all lanes as a first state is, nor what
            another layer has just left.
    """

    is_carried: Flags
    is_foreign: Flags
    is_made: Flags
    is_unknown: Flags

    @classmethod
    def nothing(cls, num_lanes: int) -> Heard:
        """Before anything is heard."""
        return cls(*(np.zeros(num_lanes, np.bool_) for _ in cls._fields))

    @property
    def is_begun(self) -> Flags:
        """Where the lanes begin with no state, or with a first one."""
        return ~(self.is_carried | self.is_foreign | self.is_unclear)

    @property
    def is_unclear(self) -> Flags:
        """Where it is not known whether what enters has to do with what was left."""
        return self.is_made | self.is_unknown

    def also(self, other: Heard) -> Heard:
        """What either shows."""
        return Heard(*(one | two for one, two in zip(self, other, strict=True)))


class _Layer:
    """What one layer has given back."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer  # kept alive, so that no other gets its id
        self.rank, self.axis = (2, 0) if isinstance(layer, nn.RNNCellBase) else (3, 1)
        self.running: deque[list[Any]] = deque(maxlen=_KEPT_CALLS)  # in this batch
        self.left: list[list[Any]] = []  # by the last training batch that called it
        self.aside: deque[list[Any]] = deque(maxlen=_KEPT_CALLS)  # outside of training batches, since the last one
        self.is_called = False

    def lanes_of(self, leaf: Any, num_lanes: int) -> int | None:
        """The axis of a tensor that counts the batch's lanes; None where none does."""
        fits = isinstance(leaf, Tensor) and leaf.ndim == self.rank and leaf.shape[self.axis] == num_lanes
        return self.axis if fits else None

    def end(self) -> None:
        """Keep copies of what the batch left: somebody may write into it."""
        if self.running:
            self.left = [[leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in call] for call in self.running]
        self.running.clear()
        self.aside.clear()
        self.is_called = False


class Listener:
    """Listens to the recurrent layers of torch.nn inside a module, from `start` to `stop`.

    One hook for all modules is used, so that nothing is put into the user's: it can be copied and saved meanwhile.

    Args:
        module: Whose layers.
    """

    def __init__(self, module: nn.Module) -> None:
        recurrent = (nn.RNNBase, nn.RNNCellBase)
        self._layers = {id(layer): _Layer(layer) for layer in module.modules() if isinstance(layer, recurrent)}
        self._num_lanes: int | None = None  # while a training batch is read
        self._heard: Heard | None = None
        self._report: Callable[[Heard], None] | None = None
        self._takes_restored = False
        self._is_connected = False
        self._handle: Any = None
        self.has_heard = False  # whether any training batch has been heard

    @property
    def has_layers(self) -> bool:
        """Whether there is anything to listen to."""
        return bool(self._layers)

    def start(self) -> None:
        """Begin to listen."""
        if self._layers and self._handle is None:
            self._handle = register_module_forward_hook(self._hear, with_kwargs=True)

    def stop(self) -> None:
        """Listen no more."""
        if self._handle is not None:
            remove_hook(self._handle)
            self._handle = None

    def open(self, num_lanes: int, report: Callable[[Heard], None], *, takes_restored: bool) -> None:
        """A training batch begins.

        Args:
            num_lanes: Of the batch.
            report: Is told of the first call of each layer, at once.
            takes_restored: Whether a state counts as carried that enters a layer which has left none so far: after a
                checkpoint.
        """
        for layer in self._layers.values():
            layer.running.clear()
            layer.is_called = False
        self._num_lanes, self._report, self._takes_restored, self._heard = num_lanes, report, takes_restored, None

    def close(self) -> Heard | None:
        """The training batch has ended.

        Returns:
            All that was heard; None where no layer was called.
        """
        for layer in self._layers.values():
            layer.end()
        self.abandon()
        self.has_heard |= self._heard is not None
        return self._heard

    def abandon(self) -> None:
        """No training batch is read now, whatever is called."""
        self._num_lanes, self._report = None, None

    def is_connected(self, state: Any) -> bool:
        """Whether the state that the module shows is known to be that of the layers: seen to leave or to enter them."""
        if self._heard is not None and self._heard.is_carried.any():
            self._is_connected = True
        if not self._is_connected:
            shown = [leaf for leaf in leaves_of(state) if isinstance(leaf, Tensor)]
            given = [leaf for layer in self._layers.values() for call in layer.running for leaf in call]
            self._is_connected = any(equal_lanes(one, other, 1, None).all() for one in shown for other in given)
        return self._is_connected

    def _hear(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling() or (layer := self._layers.get(id(module))) is None:
            return
        given = inputs[1] if len(inputs) > 1 else named.get("hx")
        left = leaves_of(detach_state(output[1] if isinstance(module, nn.RNNBase) else output))
        if self._num_lanes is None:
            layer.aside.append(left)
            return
        layer.running.append(left)
        if not layer.is_called:
            layer.is_called = True
            heard = self._judge(layer, leaves_of(given), self._num_lanes)
            self._heard = heard if self._heard is None else self._heard.also(heard)
            if self._report is not None:
                self._report(heard)

    def _judge(self, layer: _Layer, given: Sequence[Any], num_lanes: int) -> Heard:
        """What enters a layer, against what it and the others have given before."""
        is_filled = filled_lanes(given, num_lanes, [layer.lanes_of(leaf, num_lanes) for leaf in given])
        if not is_filled.any():
            return Heard.nothing(num_lanes)
        is_carried = _is_any_of(layer.left, given, num_lanes, layer)
        is_foreign = _is_any_of(layer.aside, given, num_lanes, layer) & ~is_carried
        rest = is_filled & ~is_carried & ~is_foreign
        if rest.any():
            just_left = [call for other in self._layers.values() if other is not layer for call in other.running]
            rest &= ~_is_any_of(just_left, given, num_lanes, layer)
        if rest.any() and _is_first_state(given, layer):
            rest &= False
        if not layer.left:  # nothing to compare with: a first batch, or the first after a checkpoint
            is_carried, rest = is_carried | (rest & self._takes_restored), rest & False
        has_gradient = any(isinstance(leaf, Tensor) and leaf.grad_fn is not None for leaf in given)
        nowhere = np.zeros(num_lanes, np.bool_)
        return Heard(is_carried, is_foreign, *((rest, nowhere) if has_gradient else (nowhere, rest)))


def _is_first_state(given: Sequence[Any], layer: _Layer) -> bool:
    """Whether a state is alike in all rows, as a learned or constant first state is; of one row only if learned."""
    leaves = [leaf for leaf in given if isinstance(leaf, Tensor)]
    is_alike = all(leaf.ndim != layer.rank or bool((leaf == leaf.narrow(layer.axis, 0, 1)).all()) for leaf in leaves)
    has_rows = any(leaf.ndim == layer.rank and leaf.shape[layer.axis] > 1 for leaf in leaves)
    return is_alike and (has_rows or any(leaf.requires_grad for leaf in leaves))


def _is_any_of(
    states: Sequence[list[Any]] | deque[list[Any]], given: Sequence[Any], num_lanes: int, layer: _Layer
) -> Flags:
    """Where some tensor that enters is not zero and is the one that was left."""
    found = np.zeros(num_lanes, np.bool_)
    for leaves in states:
        for leaf, old in zip(given, leaves, strict=False):
            if isinstance(leaf, Tensor) and isinstance(old, Tensor):
                axis = layer.axis if leaf.ndim == layer.rank else None
                filled = filled_lanes([leaf], num_lanes, [axis])
                found |= filled & _of_lanes(equal_lanes(leaf, old, _num_along(leaf, axis, num_lanes), axis), num_lanes)
    return found


def _num_along(leaf: Tensor, axis: int | None, num_lanes: int) -> int:
    return num_lanes if axis is None else leaf.shape[axis]


def _of_lanes(flags: Flags, num_lanes: int) -> Flags:
    """Flags of a layer's own rows for the lanes of the batch: any of them for all, where the numbers differ."""
    return flags if len(flags) == num_lanes else np.full(num_lanes, bool(flags.any()))
