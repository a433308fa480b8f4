"""How the updates of a run are computed: by autograd, or by formulas derived by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.modules import module

from echo_torch.errors import RuleError
from echo_torch.experiments.configuration import Configuration, not_covered
from echo_torch.lab.finished import configuration_of
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.training.checkpoints import Checkpoint

# A direct step is some twenty calls, each of which a GPU takes microseconds to begin; cuDNN makes one for all steps. At
# 5 and 8 steps direct is 1.8 times as fast (H200, benchmarks/gpu.py), at 50 half as fast.
_MAX_STEPS_ON_CUDA = 8


def adam_options(configuration: Configuration) -> dict[str, float]:
    """Adam's step size, and what is added to its denominator: Keras adds another number than PyTorch."""
    epsilon = 1e-7 if configuration.init == "keras" else 1e-8
    return {"learning_rate": configuration.learning_rate, "epsilon": epsilon}


def begun_plan(plan: Plan, callbacks: Sequence[object] = ()) -> Plan:
    """The plan of a run that begins, with its kernel chosen where that is left to us.

    Args:
        plan: Of the run.
        callbacks: A user's own, which may need each update.
    """
    if plan.configuration.kernel != "auto" or plan.has_own_model:
        return plan
    is_quick = not is_on_cuda(plan.configuration) or plan.layout.num_steps <= _MAX_STEPS_ON_CUDA
    is_direct = not_covered(plan.configuration) is None and not callbacks and not _is_followed() and is_quick
    return plan.with_kernel("direct" if is_direct else "autograd")


def resumed_plan(plan: Plan, run: RunDirectory, start: Checkpoint | None, callbacks: Sequence[object] = ()) -> Plan:
    """The plan of a run that goes on, with the kernel that it began with; the bits of others are others.

    Args:
        plan: Of the run; that nothing else has changed is checked already.
        run: Its directory.
        start: The checkpoint that it goes on from; None: it saved none before it ended.
        callbacks: As of `begun_plan`.
    """
    if plan.configuration.kernel != "auto" or plan.has_own_model:
        return plan
    if start is not None:
        return plan.with_kernel(configuration_of(start)[0].kernel)
    return plan.with_kernel(run.read_saved()[0].kernel) if run.config.exists() else begun_plan(plan, callbacks)


def check_callbacks(plan: Plan, callbacks: Sequence[object]) -> None:
    """Refuse callbacks where a Trainer's batch is not one update.

    Raises:
        RuleError: If there are some.
    """
    if plan.configuration.kernel == "direct" and callbacks:
        raise RuleError(
            "callbacks",
            "$callbacks can be used only where $kernel is autograd",
            f"{len(callbacks)} with kernel direct",
            reason="because a direct kernel makes many updates of a batch, and calls no hook of gradient or optimiser",
            way_out="begin the run with $kernel autograd",
        )


def _is_followed() -> bool:
    """Whether somebody hears of all calls of modules, such as a watch: a direct kernel calls none."""
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def is_on_cuda(configuration: Configuration) -> bool:
    """Whether a run is trained on a CUDA device."""
    return configuration.accelerator != "cpu" and torch.cuda.is_available()
