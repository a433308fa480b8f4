"""What a training adds to its checkpoint, as plain values: each rank's carried state, counters and random state."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


def pack_rank(carry: Sequence[Tensor] | None, pooled: Tensor | None, device: torch.device) -> dict[str, Any]:
    """What one rank puts in.

    Args:
        carry: The fields of its carried state; None before the first chunk.
        pooled: Its counters since the last row; None where there are none.
        device: On which it trains.
    """
    return {
        "carry": None if carry is None else [field.cpu() for field in carry],
        "pooled": None if pooled is None else pooled.cpu(),
        "random": random_state(device),
    }


def pack(cursor: int, ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What stands in the checkpoint.

    Args:
        cursor: The number of the chunk that is read next.
        ranks: Of every rank what `pack_rank` gave, in their order.
    """
    return {"cursor": cursor, "ranks": list(ranks)}


def random_state(device: torch.device) -> dict[str, Any]:
    """The global random states, as values that a checkpoint may hold."""
    name, keys, position, has_gauss, gauss = cast("tuple[str, Any, int, int, float]", np.random.get_state(legacy=True))
    state = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the global random states to what `random_state` gave."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
