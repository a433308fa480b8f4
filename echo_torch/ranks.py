"""Several processes that train together: who is who, what they add up, how they are started and ended."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from echo_torch.errors import RuleError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_OWN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_LAUNCHER = (*_OWN, "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
# Set by srun for each task of a step. SLURM_NTASKS is set in the shell of a job too, where one process is one process.
_STEP = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
_LSF = ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Launch:
    """What a launcher such as torchrun or srun says of this process.

    Attributes:
        rank: This process among all.
        local_rank: The same on its machine.
        num_ranks: How many there are.
        address: Where the first one can be reached.
        port: The same.
        num_local_ranks: How many there are on this machine.
        variables: By which this process knows that it is one of several.
    """

    rank: int
    local_rank: int
    num_ranks: int
    address: str
    port: int
    num_local_ranks: int
    variables: tuple[str, ...] = _OWN

    @property
    def way_to_be_alone(self) -> str:
        """What to do to train alone, a clause."""
        return f"unset {_listed(self.variables)}"


def check_launcher(devices: int | None = None) -> Launch | None:
    """What the launcher says that has started this process; None: it was started alone.

    Args:
        devices: How many processes are to train together; None: as many as there are.

    Raises:
        RuleError: If the variables of a launcher are there in part, or do not fit together, or if it has started
            another number of processes.
    """
    found = _by_torchrun() if any(name in os.environ for name in _OWN) else _by_a_scheduler()
    if found is not None and devices not in (None, found.num_ranks):
        rule = f"$devices must be {found.num_ranks}, the number of processes that the launcher has started"
        raise RuleError("devices", rule, devices)
    return found


def _by_torchrun() -> Launch:
    """What torchrun says, or whoever sets the same variables."""
    given = {name: os.environ[name] for name in _LAUNCHER if name in os.environ}
    if missing := [name for name in _LAUNCHER if name not in given]:
        raise RuleError(
            missing[0],
            f"{_listed(_LAUNCHER)} must be set together or not at all",
            f"{_listed([f'{name}={given[name]}' for name in given])} without {_listed(missing)}",
            reason="because a launcher such as torchrun sets them all, and processes need all to find each other",
            way_out=f"unset {_listed([name for name in _OWN if name in given])}, or start with torchrun",
        )
    rank, local_rank, num_ranks = _number("RANK", 0), _number("LOCAL_RANK", 0), _number("WORLD_SIZE", 1)
    num_local_ranks = _number("LOCAL_WORLD_SIZE", 1) if "LOCAL_WORLD_SIZE" in os.environ else num_ranks
    _check_below("RANK", "WORLD_SIZE")
    _check_below("LOCAL_RANK", "WORLD_SIZE")
    if "LOCAL_WORLD_SIZE" in os.environ:
        _check_below("LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Launch(rank, local_rank, num_ranks, _address(), _port(), num_local_ranks)


def _by_a_scheduler() -> Launch | None:
    """What srun says. One of several tasks of whatever does not say how they find each other is refused."""
    if any(os.environ.get(name, alone).strip() != alone for name, alone in zip(_LSF, "10", strict=True)):
        rule = f"{_LSF[0]} must be 1 and {_LSF[1]} 0 where torchrun has not started this process"
        raise _not_alone(_LSF, rule, "because the tasks of LSF do not find each other by themselves")
    if _STEP[0] not in os.environ:
        if os.environ.get(_STEP[1], "0").strip() != "0":
            rule = f"{_STEP[1]} must be 0 where neither srun nor torchrun has started this process"
            raise _not_alone(_STEP, rule, f"because tasks of SLURM find each other by what srun sets, {_STEP[0]}")
        return None
    if (num_ranks := _number(_STEP[0], 1)) == 1:
        return None
    rank, local_rank = _number(_STEP[1], 0), _number("SLURM_LOCALID", 0)
    _check_below(_STEP[1], _STEP[0])
    _check_below("SLURM_LOCALID", _STEP[0])
    address = _address() if "MASTER_ADDR" in os.environ else _first_machine()
    port = _port() if "MASTER_PORT" in os.environ else _port_of_step()
    return Launch(rank, local_rank, num_ranks, address, port, _num_tasks_here(num_ranks), _STEP)


_COUNTED = "because processes are counted from 0"


def _way_out() -> str:
    is_launched = any(name in os.environ for name in _OWN)
    return f"unset {_listed(_OWN)}, or start with torchrun" if is_launched else f"unset {_listed(_STEP)}"


def _not_alone(names: tuple[str, str], rule: str, reason: str) -> RuleError:
    found = [name for name in names if name in os.environ]
    got = _listed([f"{name}={os.environ[name]}" for name in found])
    way_out = f"start torchrun inside of it, or ask for one task, or unset {_listed(found)}"
    return RuleError(names[0], rule, got, reason=reason, way_out=way_out)


def _first_machine() -> str:
    """That of the first task of a step: of "gpu[07-09,12],cpu1" gpu07."""
    if os.environ.get("SLURM_STEP_NUM_NODES", "").strip() == "1":
        return "127.0.0.1"
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if first := re.match(r"(?:[^][,\s]|\[[^]]*\])+", os.environ.get(name, "").strip()):
            return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first[0])
    raise RuleError(
        "MASTER_ADDR",
        "MASTER_ADDR must be set where SLURM_STEP_NODELIST does not name the machine of the first task",
        reason="because the others look for it there",
        way_out=f"set it, or {_way_out()}",
    )


def _port_of_step() -> int:
    """A port that all tasks of a step work out alike, other steps hardly ever, and no system lends to anybody."""
    step = "/".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return 10_000 + zlib.crc32(step.encode(errors="surrogateescape")) % 20_000


def _num_tasks_here(num_ranks: int) -> int:
    """How many tasks of a step this machine has: by "2(x3),1" each of three machines has 2, and the next has 1."""
    counts: list[int] = []
    for part in os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if found := re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,5})\))?", part.strip()):
            counts += [int(found[1])] * int(found[2] or 1)
    node = os.environ.get("SLURM_NODEID", "0").strip()
    return counts[int(node)] if _WHOLE_NUMBER.fullmatch(node) and int(node) < len(counts) else num_ranks


def _address() -> str:
    if address := os.environ["MASTER_ADDR"].strip():
        return address
    raise _no_place()


def _port() -> int:
    if (port := _number("MASTER_PORT", 1)) < 65536:
        return port
    raise _no_place()


def _no_place() -> RuleError:
    rule = "MASTER_ADDR and MASTER_PORT must be an address and a port below 65536"
    got = " and ".join(f"{name}={os.environ.get(name, '')}" for name in ("MASTER_ADDR", "MASTER_PORT"))
    return RuleError("MASTER_PORT", rule, got, reason="so that processes find each other", way_out=_way_out())


def _check_below(name: str, number_of_all: str) -> None:
    if _number(name, 0) >= _number(number_of_all, 1):
        got = f"{name}={os.environ[name]} with {number_of_all}={os.environ[number_of_all]}"
        raise RuleError(name, f"{name} must be below {number_of_all}", got, reason=_COUNTED, way_out=_way_out())


def _number(name: str, low: int) -> int:
    text = os.environ.get(name, "").strip()
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) < low:
        rule = f"{name} must be a whole number from {low} on"
        raise RuleError(name, rule, f"{name}={text}", reason=_COUNTED, way_out=_way_out())
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


def num_devices_here(devices: int) -> int:
    """How many of so many processes that train together are on this machine."""
    found = launch()
    return devices if found is None else min(devices, found.num_local_ranks)


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
