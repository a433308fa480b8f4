"""Several processes that train together: who is who, what they add up, how they are started and ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def launched_ranks() -> int | None:
    """How many processes a launcher such as torchrun has started for this training; None: it was started alone."""
    if "LOCAL_RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    return int(os.environ["WORLD_SIZE"])


def is_first_rank() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return launched_ranks() is None or os.environ.get("RANK", os.environ["LOCAL_RANK"]) == "0"


def num_ranks() -> int:
    """How many processes train together."""
    import torch

    return torch.distributed.get_world_size() if _is_several() else 1


def own_rank() -> int:
    """This process among those that train together."""
    import torch

    return torch.distributed.get_rank() if _is_several() else 0


def gather(value: T) -> list[T]:
    """What every rank gives here, in their order. All ranks must call it."""
    import torch

    if not _is_several():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of what every rank gives here. All ranks must call it."""
    import torch

    if not _is_several():
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values


def _is_several() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()
