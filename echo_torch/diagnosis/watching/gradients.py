"""Which gradients come back to a call, and which go through the state that enters it; hooks on tensors tell."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from echo_torch.diagnosis.watching.lanes import fields_of
from echo_torch.diagnosis.watching.recorded import Call

Guard = Callable[[Callable[..., None]], Callable[..., None]]


class Gradients:
    """Hooks on the tensors of calls.

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
        self._keys = itertools.count(-1, -1)  # those of torch are not below zero
        self._hooks: list[tuple[weakref.ref[dict[int, Any]], int]] = []  # those of a tensor, and the key of the own one

    def listen(self, call: Call, given: Any, left: Sequence[Any], *, has_gradients: bool) -> None:
        """Notice gradients: those that come back to the call, and those that go through the state that enters it."""
        hook = functools.partial(self._reach, call)
        for tensor in left:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                self._hook(tensor, hook)
        before = [number for number in call.entering.calls if self._calls[number].reached is not None]
        if before and has_gradients:
            for tensor in fields_of(given):
                if tensor.grad_fn is not None:
                    self._hook(tensor, functools.partial(self._reach_back, call, before))

    def hook(self, tensor: Tensor, notice: Callable[[Tensor], None]) -> None:
        """Call a function with the gradient of a tensor when it comes."""
        self._hook(tensor, self._guarded(notice))

    def drop_gone(self) -> None:
        """Forget the hooks of tensors that live no more."""
        self._hooks = [hook for hook in self._hooks if hook[0]() is not None]

    def release(self) -> None:
        """Take all hooks away."""
        for reference, key in self._hooks:
            if (hooks := reference()) is not None:
                hooks.pop(key, None)
        self._hooks.clear()

    def __len__(self) -> int:
        return len(self._hooks)

    def _note_reached(self, call: Call, gradient: Tensor) -> None:
        if call.reached is None:
            call.reached, call.reached_before = self.update, len(self._calls)

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
