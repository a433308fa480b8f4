"""Several processes that train together: who is who, what they add up, how they are started and ended."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from echo_torch.errors import RuleError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_OWN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_LAUNCHER = (*_OWN, "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
# How many tasks, and which of them: of schedulers that start several without saying how they find each other.
_SCHEDULERS = (("SLURM", "SLURM_NTASKS", "SLURM_PROCID"), ("LSF", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"))
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Launch:
    """What a launcher such as torchrun says of this process.

    Attributes:
        rank: This process among all.
        local_rank: The same on its machine.
        num_ranks: How many there are.
        address: Where the first one can be reached.
        port: The same.
    """

    rank: int
    local_rank: int
    num_ranks: int
    address: str
    port: int


def check_launcher(devices: int | None = None) -> Launch | None:
    """What the launcher says that has started this process; None: it was started alone.

    Args:
        devices: How many processes are to train together; None: as many as there are.

    Raises:
        RuleError: If the variables of a launcher are there in part, or do not fit together, or if it has started
            another number of processes.
    """
    given = {name: os.environ[name] for name in _LAUNCHER if name in os.environ}
    if not any(name in given for name in _OWN):
        _check_alone()
        return None
    if missing := [name for name in _LAUNCHER if name not in given]:
        raise RuleError(
            missing[0],
            f"{_listed(_LAUNCHER)} must be set together or not at all",
            f"{_listed([f'{name}={given[name]}' for name in given])} without {_listed(missing)}",
            reason="because a launcher such as torchrun sets them all, and processes need all to find each other",
            way_out=f"unset {_listed([name for name in _OWN if name in given])}, or start with torchrun",
        )
    rank, local_rank, num_ranks, port = (
        _number(name, low) for name, low in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1), ("MASTER_PORT", 1))
    )
    for name, number in (("RANK", rank), ("LOCAL_RANK", local_rank)):
        if number >= num_ranks:
            rule = f"{name} must be below WORLD_SIZE"
            raise RuleError(name, rule, f"{name}={number} with WORLD_SIZE={num_ranks}", reason=_COUNTED, way_out=_UNSET)
    if port > 65535 or not given["MASTER_ADDR"].strip():
        what = "MASTER_ADDR and MASTER_PORT must be an address and a port below 65536"
        got = f"MASTER_ADDR={given['MASTER_ADDR']} and MASTER_PORT={port}"
        raise RuleError("MASTER_PORT", what, got, reason="so that processes find each other", way_out=_UNSET)
    if devices not in (None, num_ranks):
        rule = f"$devices must be {num_ranks}, the number of processes that the launcher has started"
        raise RuleError("devices", rule, devices)
    return Launch(rank, local_rank, num_ranks, given["MASTER_ADDR"], port)


_COUNTED = "because processes are counted from 0"
_UNSET = "unset RANK, LOCAL_RANK and WORLD_SIZE, or start with torchrun"


def _check_alone() -> None:
    """Refuse to be one of several tasks of a scheduler that nobody has made one training of."""
    for scheduler, size, rank in _SCHEDULERS:
        found = {name: os.environ[name] for name in (size, rank) if name in os.environ}
        if all(text.strip() == alone for text, alone in ((found.get(size, "1"), "1"), (found.get(rank, "0"), "0"))):
            continue
        raise RuleError(
            size,
            f"{size} must be 1 and {rank} 0 where torchrun has not started this process",
            _listed([f"{name}={text}" for name, text in found.items()]),
            reason=f"because the tasks of {scheduler} do not find each other by themselves",
            way_out=f"start torchrun inside of it, or ask for one task, or unset {_listed(list(found))}",
        )


def _number(name: str, low: int) -> int:
    text = os.environ[name].strip()
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) < low:
        raise RuleError(
            name, f"{name} must be a whole number from {low} on", f"{name}={text}", reason=_COUNTED, way_out=_UNSET
        )
    return int(text)


def _listed(words: list[str] | tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def launch() -> Launch | None:
    """As `check_launcher`, where its variables can be used; else None: then this process speaks for itself."""
    try:
        return check_launcher()
    except RuleError:
        return None


def launched_ranks() -> int | None:
    """How many processes a launcher such as torchrun has started for this training; None: it was started alone."""
    found = launch()
    return None if found is None else found.num_ranks


def launched_rank() -> int:
    """This process among those that a launcher has started; 0: it is the first, or was started alone."""
    found = launch()
    return 0 if found is None else found.rank


def is_first_rank() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return launched_rank() == 0


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
