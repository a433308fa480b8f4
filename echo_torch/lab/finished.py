"""A finished run read back: its network, and the evaluation it repeats."""

from __future__ import annotations

from typing import Any

from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.lab.plan import (
    build_model,
    evaluate_model,
    evaluation_ceiling,
)
from echo_torch.lab.resume import (
    check_same,
    check_weights,
    configuration_of,
)
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.models.networks import EchoModel
from echo_torch.models.state import RecurrentModel
from echo_torch.training.checkpoints import newest_checkpoint, read_checkpoint


def evaluation_result(configuration: Configuration, model: RecurrentModel[Any]) -> dict[str, Any]:
    """The part of result.json that an evaluation makes.

    The questions are asked twice: with the state carried as in training, and (`accuracy_reset`) reset at every chunk.
    """
    found = evaluate_model(configuration, model)
    # Where training resets it, both are the same.
    reset = evaluate_model(configuration, model, is_reset=True) if configuration.carry == "keep" else found
    low, high = found.interval or (None, None)
    reset_low, reset_high = reset.interval or (None, None)
    return {
        "accuracy": found.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": found.loss,
        "chance": 1 / configuration.vocabulary_size,
        "ceiling": evaluation_ceiling(configuration),
        "targets": found.asked,
        "accuracy_by_chunk": found.accuracy_by_chunk,
        "targets_by_chunk": [asked for _, asked in found.by_chunk],
        "accuracy_reset": reset.accuracy,
        "accuracy_reset_low": reset_low,
        "accuracy_reset_high": reset_high,
        "accuracy_reset_by_chunk": reset.accuracy_by_chunk,
    }


def load_model(run: RunDirectory) -> tuple[Configuration, EchoModel]:
    """The configuration of a run and its network with the trained weights, on the CPU.

    Raises:
        UserError: If the directory holds no run, or its checkpoint cannot be read or belongs to another network.
    """
    configuration = run.read_config()
    path = newest_checkpoint(run.checkpoint)
    if path is None:
        raise UserError(f"{str(run.path)!r} holds no checkpoint; the run ended before one was saved.")
    checkpoint = read_checkpoint(path)
    model = build_model(configuration)
    saved, _ = configuration_of(checkpoint, path)
    check_same(saved, configuration, f"The checkpoint {str(path)!r}")
    check_weights(model, checkpoint, path)
    weights = checkpoint["state_dict"].items()
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights})
    return configuration, model
