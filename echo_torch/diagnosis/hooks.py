"""Hooks on all modules, taken away whole."""

from __future__ import annotations

from torch.nn.modules.module import _global_forward_hooks_with_kwargs
from torch.utils.hooks import RemovableHandle


def remove_hook(handle: RemovableHandle) -> None:
    """Remove a hook of all modules.

    torch 2.13 leaves behind that the hook wanted named arguments, and then warns of global hooks where a module is
    compiled later.
    """
    handle.remove()
    _global_forward_hooks_with_kwargs.pop(handle.id, None)
