"""A run read back from its directory: its network, and the evaluation it repeats."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from echo_torch.errors import RuleError, UserError, plain
from echo_torch.experiments.configuration import Configuration, configure_saved, differences
from echo_torch.files import FORMAT
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory, weights_sha256
from echo_torch.lab.yaml_files import SOURCE_KEY, check_format
from echo_torch.models.own_model import Network
from echo_torch.models.state import RecurrentModel
from echo_torch.training.checkpoints import (
    CHECKPOINT_KEY,
    RUN_KEY,
    Checkpoint,
    CheckpointWarning,
    newest_checkpoint,
)
from echo_torch.waiting import Progress


def load_model(
    run: RunDirectory, *, model: str | None = None, allow_changed_model: bool = False
) -> tuple[Configuration, Network]:
    """The configuration of a run and its network with the trained weights, on the CPU, ready to answer.

    Args:
        run: Its directory.
        model: The model again, where it is a class of a user's own: nothing that a directory names is run by itself.
        allow_changed_model: Whether the file that defines the class may have changed since.

    Raises:
        RuleError: If the model is another one, or missing.
        UserError: If the directory holds no run, its checkpoint cannot be read or belongs to another network, or the
            source of its model has changed.
    """
    plan = Plan(run.read_config(model))
    return plan.configuration, _load(run, plan, allow_changed_model=allow_changed_model, needs_data=False)


def load_weights(run: RunDirectory, plan: Plan, *, allow_changed_model: bool = False) -> Network:
    """The trained network of a run whose plan is there already, to be evaluated by it.

    Raises:
        UserError: As `load_model`, or if the user's own data have changed since.
    """
    return _load(run, plan, allow_changed_model=allow_changed_model, needs_data=True)


def _load(run: RunDirectory, plan: Plan, *, allow_changed_model: bool, needs_data: bool) -> Network:
    check_allowed(plan, is_allowed=allow_changed_model)
    checkpoint = newest_checkpoint(run.checkpoint)
    if checkpoint is None:
        raise UserError(f"{str(run.path)!r} holds no checkpoint; the run ended before one was saved.")
    what = f"The checkpoint {str(checkpoint.path)!r}"
    saved, _ = configuration_of(checkpoint)
    check_unchanged(saved, plan.configuration, run, f"the checkpoint {str(checkpoint.path)!r}")
    check_source(checkpoint.contents[RUN_KEY].get(SOURCE_KEY), plan, what, is_allowed=allow_changed_model)
    if needs_data:
        check_data(plan, checkpoint)
    model = plan.model()
    check_weights(model, checkpoint)
    weights = checkpoint.take()["state_dict"].items()
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights})
    return model.eval()


def evaluation_result(plan: Plan, model: RecurrentModel[Any], *, progress: Progress = False) -> dict[str, Any]:
    """The part of result.json that an evaluation makes.

    The questions are asked twice: with the state carried as in training, and (`accuracy_reset`) reset at every chunk.

    Args:
        plan: Of the run.
        model: Its network.
        progress: As of `evaluate`.
    """
    found = plan.evaluate(model, progress=progress)
    # Where training resets it, both are the same.
    is_carried = plan.configuration.reading.carry == "keep"
    reset = plan.evaluate(model, is_reset=True, progress=progress) if is_carried else found
    low, high = found.interval or (None, None)
    reset_low, reset_high = reset.interval or (None, None)
    return {
        "accuracy": found.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": found.loss,
        "chance": 1 / plan.configuration.vocabulary_size,
        "ceiling": plan.evaluation_ceiling(progress=progress),
        "targets": found.asked,
        "accuracy_by_chunk": found.accuracy_by_chunk,
        "targets_by_chunk": [asked for _, asked in found.by_chunk],
        "accuracy_reset": reset.accuracy,
        "accuracy_reset_low": reset_low,
        "accuracy_reset_high": reset_high,
        "accuracy_reset_by_chunk": reset.accuracy_by_chunk,
    }


def result_of(
    plan: Plan,
    model: torch.nn.Module,
    evaluation: Mapping[str, Any],
    *,
    updates: int,
    seconds: float,
    gaps: Mapping[int | str, int],
) -> dict[str, Any]:
    """What result.json holds.

    Args:
        plan: Of the run.
        model: Its network, trained.
        evaluation: As `evaluation_result` made it.
        updates: How many were made.
        seconds: How long they took.
        gaps: How often each gap occurred.
    """
    c = plan.configuration
    return {
        "format": FORMAT,
        "mode": c.mode,
        "seed": c.seed,
        **evaluation,
        "updates": updates,
        "seconds": round(seconds, 3),
        "updates_per_second": round(updates / seconds, 1),
        "gaps": {str(gap): number for gap, number in gaps.items()},
        "parameters": count_weights(model),
        "weights_sha256": weights_sha256(model.state_dict()),
        "config": c.to_dict(),
        **({SOURCE_KEY: plan.model_digest} if plan.has_own_model else {}),
        "versions": dict(current_versions()),
    }


def configuration_of(checkpoint: Checkpoint) -> tuple[Configuration, dict[str, str]]:
    """The configuration and the versions that a checkpoint was written with.

    Raises:
        UserError: If it is not one of a run, or of one in another format.
    """
    if RUN_KEY in checkpoint.contents:
        check_format(checkpoint.contents.get("format"), f"The checkpoint {str(checkpoint.path)!r}")
    try:
        note = checkpoint.contents[RUN_KEY]
        carried = checkpoint.contents[CHECKPOINT_KEY]
        if not isinstance(carried["cursor"], int) or carried["cursor"] != checkpoint.update:
            raise ValueError("the stream's place is not that of the update")
        versions = {name: str(note["versions"][name]) for name in current_versions()}
        len(carried["ranks"])
        return configure_saved(note["config"]), versions
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"The checkpoint {str(checkpoint.path)!r} is not one of a run here: {error}.") from None


def check_data(plan: Plan, checkpoint: Checkpoint) -> None:
    """Refuse a user's own data that are not those of the run.

    Raises:
        UserError: If they have changed.
    """
    if checkpoint.contents[RUN_KEY].get("data") != plan.digest:
        raise UserError(
            f"{plan.configuration.data!r} has changed since {str(checkpoint.path)!r} was written, and a run stays with "
            "its data: bring them back, or train anew."
        )


def check_same(saved: Configuration, now: Configuration, what: str) -> None:
    """Refuse to go on with another configuration than the saved one.

    Args:
        saved: Of the run that is to go on.
        now: The one that is wanted.
        what: Whose the saved one is, for the error.

    Raises:
        RuleError: If they differ in more than a training that is longer now.
    """
    if found := differences(saved, now):
        changes = ", ".join(f"${name} was {plain(was)} and is {plain(new)}" for name, (was, new) in found.items())
        raise RuleError(
            next(iter(found)),
            f"{plain(what)} cannot be continued with other options, or it would be another training: {changes}",
            way_out="$sequences or $updates alone may grow",
        )


def check_unchanged(saved: Configuration, now: Configuration, run: RunDirectory, what: str) -> None:
    """Refuse to answer for a run whose config.yaml is not that of its training any more.

    Args:
        saved: What its training has saved.
        now: What its config.yaml says.
        run: Its directory.
        what: What holds the saved one, for the error.

    Raises:
        UserError: If they differ in more than the length of the training.
    """
    for name, (was, new) in differences(saved, now).items():
        raise UserError(
            f"{str(run.config)!r} and {what} are not of the same training: {name} is {new} in the first, {was} in the "
            "other. One of the two was changed since.",
            "Put it back, or train the run anew.",
        )


def check_source(saved: object, plan: Plan, what: str, *, is_allowed: bool) -> None:
    """Refuse to go on with an own model whose source is not the one that was saved.

    Args:
        saved: The digest that was saved; None where there was no own model.
        plan: Of the run as it is now.
        what: What holds the saved one, for the error.
        is_allowed: Whether it is enough to warn of it.

    Raises:
        RuleError: If it has changed.
    """
    if saved == plan.model_digest:
        return
    model = plan.configuration.model
    if not is_allowed:
        raise RuleError(
            "allow_changed_model",
            f"{plain(what)} was written with another source of {plain(model)}",
            reason="and other code may make another network of the same weights",
            way_out="bring the old source back, or go on with the new one by $allow_changed_model",
        )
    warnings.warn(
        f"{what} was written with another source of {model}: the new one is used, as allowed.",
        CheckpointWarning,
        stacklevel=3,
    )


def check_allowed(plan: Plan, *, is_allowed: bool) -> None:
    """Refuse to allow a changed model where none can have changed.

    Raises:
        RuleError: If the model is one of the networks here.
    """
    if is_allowed and not plan.has_own_model:
        rule = "$allow_changed_model has an effect only where $model is a class of your own"
        raise RuleError("allow_changed_model", rule, plan.configuration.model)


def count_weights(model: torch.nn.Module) -> int:
    """How many numbers of a network are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def check_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose weights are not this network's in name, shape and type.

    Raises:
        UserError: If they are not.
    """
    needed = {f"model.{name}": kind_of(value) for name, value in model.state_dict().items()}
    weights = checkpoint.contents.get("state_dict")
    found = {name: kind_of(value) for name, value in weights.items()} if isinstance(weights, dict) else {}
    if found != needed:
        name = next(name for name in [*needed, *found] if needed.get(name) != found.get(name))
        raise UserError(
            f"The checkpoint {str(checkpoint.path)!r} belongs to another network: {name} must be "
            f"{needed.get(name, 'absent')}. Got {found.get(name, 'none')}."
        )


def kind_of(value: Any) -> str:
    """A tensor's type and shape in words; of anything else its type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


@cache
def current_versions() -> Mapping[str, str]:
    """What the bits of a result depend on, beside the machine."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pytorch_lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }
