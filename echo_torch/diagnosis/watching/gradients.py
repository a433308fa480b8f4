"""Which gradients come back to a call, and which go through the state that enters it; hooks on tensors tell."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from echo_torch.diagnosis.watching.lanes import fields_of
from echo_torch.diagnosis.watching.recorded import Call

Guard = Callable[[Callable[..., None]], Callable[..., None]]

_ENOUGH = 3  # chains whose last step a gradient came back to, so that nothing is expected of the others
_NEVER = -(2**31)


@dataclass(slots=True)
class _Chain:
    """Calls of which each was given what the one before left, as it is: a gradient goes through all of them.

    Attributes:
        layer: The number of the first one's layer.
        calls: As above.
        is_thin: Whether only the first and the last have hooks.
    """

    layer: int
    calls: list[Call] = field(default_factory=list)
    is_thin: bool = False


class Gradients:
    """Hooks on the tensors of calls.

    A model that steps a cell needs none on each step: what comes back to the last one goes through all before it. So
    the first and the last step have hooks, as soon as it was seen of a layer that gradients come to the last ones.

    Args:
        calls: All that were recorded, as they are added to.
        guarded: Makes a hook one that cannot raise.

    Attributes:
        update: How many optimiser steps have been made.
    """

    def __init__(self, calls: Sequence[Call], guarded: Guard) -> None:
        self.update = 0
        self._calls = calls
        self._guarded = guarded
        self._reach, self._reach_back = guarded(self._note_reached), guarded(self._note_reached_back)
        self._chain = _Chain(-1)  # the one that goes on, and the tensors that its calls left
        self._left: list[list[Tensor]] = []
        self._num_whole: dict[int, int] = {}  # of each layer, chains to whose last call a gradient came
        self._keys = itertools.count(-1, -1)  # those of torch are not below zero
        self._hooks: list[tuple[weakref.ref[dict[int, Any]], int]] = []  # those of a tensor, and the key of the own one

    def listen(self, call: Call, given: Any, left: Sequence[Any], *, has_gradients: bool) -> None:
        """Notice gradients: those that come back to the call, and those that go through the state that enters it."""
        tensors = [tensor for tensor in left if isinstance(tensor, Tensor) and tensor.requires_grad]
        if not self._goes_on(fields_of(given)):
            self.close()
            self._chain = _Chain(call.layer)
        self._chain.calls.append(call)
        self._left.append(tensors)
        before = [number for number in call.entering.calls if self._calls[number].reached is not None]
        if before and has_gradients:
            for tensor in fields_of(given):
                if tensor.grad_fn is not None:
                    self._hook(tensor, functools.partial(self._reach_back, call, before))

    def _goes_on(self, given: Sequence[Tensor]) -> bool:
        last = self._left[-1] if self._left else ()
        return len(given) == len(last) > 0 and all(one is other for one, other in zip(given, last, strict=True))

    def close(self) -> None:
        """No more calls come that go on from the last one: listen to what was left."""
        chain, left, self._left = self._chain, self._left, []
        chain.is_thin = len(left) > 2 and self._num_whole.get(chain.layer, 0) >= _ENOUGH
        for number in (0, -1) if chain.is_thin else range(len(left)):
            hook = functools.partial(self._reach, chain, number)
            for tensor in left[number]:
                self._hook(tensor, hook)

    def hook(self, tensor: Tensor, notice: Callable[[Tensor], None]) -> None:
        """Call a function with the gradient of a tensor when it comes."""
        self._hook(tensor, self._guarded(notice))

    def drop_gone(self) -> None:
        """Forget the hooks of tensors that live no more."""
        self._hooks = [hook for hook in self._hooks if hook[0]() is not None]

    def release(self) -> None:
        """Take all hooks away, and hold no tensor."""
        self._left.clear()
        for reference, key in self._hooks:
            if (hooks := reference()) is not None:
                hooks.pop(key, None)
        self._hooks.clear()

    def __len__(self) -> int:
        return len(self._hooks)

    def _note_reached(self, chain: _Chain, number: int, gradient: Tensor) -> None:
        calls, last = chain.calls, chain.calls[-1]
        for call in calls if chain.is_thin and number == -1 else (calls[number],):
            if call.reached is None:
                call.reached, call.reached_before = self.update, len(self._calls)
        if number == 0 and len(calls) > 2:  # the gradient has gone through all others that it comes to
            num_whole = self._num_whole.get(chain.layer, 0)
            self._num_whole[chain.layer] = num_whole + 1 if last.reached is not None else _NEVER

    def _note_reached_back(self, call: Call, before: Sequence[int], gradient: Tensor) -> None:
        call.reaches_back += tuple((self._calls[number].reached or 0, self.update) for number in before)

    def _hook(self, tensor: Tensor, notice: Callable[[Tensor], None]) -> None:
        """What `Tensor.register_hook` does, without an object for whoever takes the hook away: many steps have one."""
        hooks = tensor._backward_hooks
        if hooks is None:
            hooks = tensor._backward_hooks = OrderedDict()
            if tensor.grad_fn is not None:
                tensor.grad_fn._register_hook_dict(tensor)
        key = next(self._keys)
        hooks[key] = notice
        self._hooks.append((weakref.ref(hooks), key))
