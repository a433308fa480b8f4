"""What is compiled, or called by something that records or maps: no hook can look into it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

BY_COMPILE = "The script compiles by torch.compile, and what is compiled cannot be watched: nothing was from there on."
BY_EXPORT = "The script exports a model by torch.export, which cannot be watched: nothing was from there on."
BY_JIT = "compiled by torch.jit, so what recurrent layers do with their states inside is not seen."
BY_FUNC = "states inside a function of torch.func, as vmap or grad, are not seen."
BY_SHAPES = "called with shapes alone, without any values, so no state is seen."
_is_tracing, _functorch = torch._C._is_tracing, torch._C._functorch
_RECURRENT = {"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"}


class Compilers:
    """Stands before those that compile: they would go through hooks too, and what they do.

    Args:
        step_aside: Takes all hooks away; it is told why.
    """

    def __init__(self, step_aside: Callable[[str], None]) -> None:
        self._step_aside = step_aside
        self._before: list[tuple[ModuleType, str, Callable[..., Any]]] = []

    def begin(self) -> None:
        """Step aside from now on whenever one begins."""
        for owner, name, why in ((torch, "compile", BY_COMPILE), (torch.export, "export", BY_EXPORT)):
            before = getattr(owner, name)
            self._before.append((owner, name, before))
            setattr(owner, name, self._around(before, why))

    def end(self) -> None:
        """Leave them as they were."""
        while self._before:
            setattr(*self._before.pop())

    def _around(self, before: Callable[..., Any], why: str) -> Callable[..., Any]:
        @functools.wraps(before)
        def aside(*args: Any, **kwargs: Any) -> Any:
            self._step_aside(why)
            return before(*args, **kwargs)

        return aside


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has made it."""
    return type(module).__name__ == "OptimizedModule"


def hides_recurrence(module: nn.Module) -> bool:
    """Whether torch.jit has compiled it, or a part of it, with a recurrent layer inside."""
    scripts = [part for part in module.modules() if isinstance(part, torch.jit.ScriptModule)]
    return any(part.original_name in _RECURRENT for part in scripts)


def is_mapped() -> bool:
    """Whether torch.func maps over what is called, or differentiates it."""
    return _functorch.peek_interpreter_stack() is not None


def is_recorded() -> bool:
    """Whether torch.jit traces what is called, or torch.func maps over it: its tensors are no numbers to be read."""
    return _is_tracing() or _functorch.peek_interpreter_stack() is not None
