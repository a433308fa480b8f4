"""What is compiled, or called by something that records or maps: no hook can look into it."""

from __future__ import annotations

import torch
from torch import nn

BY_COMPILE = "The script compiles by torch.compile, and what is compiled cannot be watched: nothing was from there on."
BY_JIT = "compiled by torch.jit, so what recurrent layers do with their states inside is not seen."
BY_FUNC = "states inside a function of torch.func, as vmap or grad, are not seen."
BY_SHAPES = "called with shapes alone, without any values, so no state is seen."
_RECURRENT = {"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"}


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has made it."""
    return type(module).__name__ == "OptimizedModule"


def hides_recurrence(module: nn.Module) -> bool:
    """Whether torch.jit has compiled it, or a part of it, with a recurrent layer inside."""
    scripts = [part for part in module.modules() if isinstance(part, torch.jit.ScriptModule)]
    return any(part.original_name in _RECURRENT for part in scripts)


def is_mapped() -> bool:
    """Whether torch.func maps over what is called, or differentiates it."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_recorded() -> bool:
    """Whether torch.jit traces what is called, or torch.func maps over it: its tensors are no numbers to be read."""
    return bool(torch._C._is_tracing()) or is_mapped()
