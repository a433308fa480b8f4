"""Imports of what takes a second."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import without searching for garbage meanwhile, nor in what was imported ever after.

    Torch and Lightning make a million objects that stay. To look through them again and again takes a fifth of the time
    that they take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
