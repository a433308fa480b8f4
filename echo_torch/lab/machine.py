"""What a run asks of the machine, before anything is made."""

from __future__ import annotations

import importlib.util

import torch

from echo_torch.errors import RuleError, UserError
from echo_torch.lab.plan import Plan
from echo_torch.ranks import check_launcher, num_devices_here


def check_machine(plan: Plan) -> None:
    """Refuse what this machine cannot do, before anything is made.

    Raises:
        UserError: If a device or a package is missing, or the variables of a launcher are there in part.
    """
    c = plan.configuration
    launched = check_launcher(c.devices)
    if c.accelerator == "cuda":
        if not torch.cuda.is_available():
            rule = "$accelerator cuda needs a CUDA device, and PyTorch finds none here"
            raise RuleError("accelerator", rule, "cuda", way_out="use auto or cpu")
        found, here = torch.cuda.device_count(), num_devices_here(c.devices)
        if found < here and launched is not None:
            rule = f"The launcher must start at most {found} processes here, the number of CUDA devices"
            raise RuleError("devices", rule, here, reason="because each has one of its own")
        if found < here:
            raise RuleError("devices", f"$devices must be at most {found}, the CUDA devices here", here)
    if c.devices > (num_lanes := plan.layout.num_lanes):
        rule = f"$devices must be at most the number of lanes, {num_lanes}"
        raise RuleError("devices", rule, c.devices, reason="because a lane stays whole on one device")
    if c.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed: pip install 'echo-torch[tensorboard]'.")
