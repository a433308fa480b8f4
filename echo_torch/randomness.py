"""The global random states: saved, set again, left as they were."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from echo_torch.errors import UserError

_IN_USE = threading.RLock()  # held by the thread that has set the global random states
_POLL_SECONDS = 0.1


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and PyTorch's generators, as values that a checkpoint may hold.

    Of CUDA that of the current device, where this process uses one.
    """
    import numpy as np
    import torch

    name, keys, position, has_gauss, gauss = cast("tuple[str, Any, int, int, float]", np.random.get_state(legacy=True))
    version, words, normal = random.getstate()
    state = {
        # As a tensor: a checkpoint is several times as soon written as with 625 numbers one by one.
        "python": [version, torch.tensor(words), normal],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the global random states to what `random_state` gave; that of CUDA only where this process uses it."""
    import numpy as np
    import torch

    version, words, normal = state["python"]
    # Checkpoints of earlier versions hold the numbers themselves.
    random.setstate((version, tuple(words.tolist() if isinstance(words, torch.Tensor) else words), normal))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever is drawn inside, the global random states are afterwards as they were."""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)


class _Use:
    """Whether the thread that holds `_IN_USE` keeps it for long."""

    is_long = False


@contextmanager
def _global_states(*, for_long: bool) -> Iterator[None]:
    while not _IN_USE.acquire(timeout=_POLL_SECONDS):
        if _Use.is_long:
            raise UserError(
                "A model of your own draws its weights from random generators that all threads share, and another "
                "thread trains with them; wait until it is done, or use a process of its own."
            )
    before = _Use.is_long
    _Use.is_long = before or for_long
    try:
        yield
    finally:
        _Use.is_long = before
        _IN_USE.release()


@contextmanager
def seeded(seed: int, *, for_long: bool = False) -> Iterator[None]:
    """The global random states begin at a seed; afterwards they are as they were. One thread at a time may do so.

    Args:
        seed: Of all of them.
        for_long: Whether other threads are refused meanwhile, and not only kept waiting.

    Raises:
        UserError: If another thread does so for long.
    """
    import numpy as np
    import torch

    with _global_states(for_long=for_long), random_state_kept():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed([seed % 2**32, seed // 2**32])  # numpy takes 32 bits at a time
        yield
