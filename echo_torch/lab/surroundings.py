"""What surrounds a training in its process and would change its bits: set aside where it can be, else refused."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch

from echo_torch.errors import RuleError
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.options import is_own_model
from echo_torch.ranks import launched_ranks

_Function = TypeVar("_Function", bound=Callable[..., Any])

_WHY = "because the numbers of a run hang on its configuration alone"


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """PyTorch as a new thread finds it, whatever this one has switched on around: autocast, gradients, the device."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                torch.set_autocast_enabled(kind, False)
                stack.callback(torch.set_autocast_enabled, kind, True)
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        yield


def check_torch() -> None:
    """Refuse settings of PyTorch that other threads share, so that they cannot be set aside.

    Raises:
        RuleError: If one is not as it is in a new process.
    """
    for name, found, needed, way_out in (
        ("default_dtype", torch.get_default_dtype(), torch.float32, "torch.set_default_dtype(torch.float32)"),
        ("float32_matmul_precision", _precision(), "highest", "torch.set_float32_matmul_precision('highest')"),
        ("mkldnn", torch.backends.mkldnn.enabled, True, "torch.backends.mkldnn.set_flags(True)"),
        ("flush_denormal", _flushes_denormal(), False, "torch.set_flush_denormal(False)"),
    ):
        if found != needed:
            rule = f"PyTorch's {name} must be {needed} around a run"
            raise RuleError(name, rule, found, reason=_WHY, way_out=f"call {way_out} before it")


def _flushes_denormal() -> bool:
    return torch.tensor(1e-40, device="cpu").mul(1).item() == 0


def _precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by backend, which has no common name
        return "set for a backend alone"


@dataclass(frozen=True, eq=False)
class _Training:
    threads: int
    is_own_model: bool
    is_one_of_several: bool


class _Process:
    """The trainings of this process: what they share, and may not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[_Training] = []
        self._hidden: dict[str, str] = {}

    @contextlib.contextmanager
    def train(self, configuration: Configuration) -> Iterator[None]:
        """While a training runs.

        Raises:
            RuleError: If others run that it would disturb, or that would disturb it.
        """
        several = (launched_ranks() or 1) > 1
        own = _Training(configuration.threads, is_own_model(configuration.model), several)
        with self._lock:
            for other in self._running:
                _check_together(own, other, configuration)
            if not self._running:
                self._hide()
            self._running.append(own)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(own)
                if not self._running:
                    os.environ.update(self._hidden)

    def _hide(self) -> None:
        """Variables by which Lightning seeds anew what the run has seeded already, in several processes or loaders."""
        names = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
        self._hidden = {name: os.environ.pop(name) for name in names if name in os.environ}


def _check_together(own: _Training, other: _Training, configuration: Configuration) -> None:
    way_out = "train one after the other, or each in a process of its own"
    if own.is_own_model or other.is_own_model:
        raise RuleError(
            "model",
            "A $model of your own must train alone in its process",
            f"{configuration.model} while another thread trains",
            reason="because it may draw from the random generators that all threads share",
            way_out=way_out,
        )
    if own.is_one_of_several:
        rule = "A training of several processes must be alone in each of them"
        raise RuleError("devices", rule, configuration.devices, reason="so that all do the same", way_out=way_out)
    if own.threads != other.threads:
        rule = f"$threads must be {other.threads}, as of the training in another thread of this process"
        raise RuleError(
            "threads", rule, own.threads, reason="because PyTorch counts them once for all", way_out=way_out
        )


_PROCESS = _Process()


def _forget() -> None:
    global _PROCESS
    _PROCESS = _Process()


os.register_at_fork(after_in_child=_forget)  # the trainings are the parent's


@contextlib.contextmanager
def own_surroundings(configuration: Configuration) -> Iterator[None]:
    """What a training needs around it.

    Raises:
        RuleError: If something around would change its bits and cannot be set aside, or if trainings of other threads
            would, or theirs.
    """
    is_here = configuration.devices == 1 or launched_ranks() is not None
    with plain_torch():
        check_torch()
        with _PROCESS.train(configuration) if is_here else contextlib.nullcontext():
            yield


def in_own_surroundings(train: _Function) -> _Function:
    """Let a function that trains, its `configuration` first, do so in `own_surroundings`."""
    signature = inspect.signature(train)

    @functools.wraps(train)
    def surrounded(*given: Any, **named: Any) -> Any:
        configuration = signature.bind(*given, **named).arguments["configuration"]
        with own_surroundings(getattr(configuration, "configuration", configuration)):
            return train(*given, **named)

    return cast(_Function, surrounded)
