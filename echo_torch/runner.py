"""From a configuration to a finished run directory: the only place that builds a training."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import IO, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger

from echo_torch.audit import StateAudit
from echo_torch.builders import (
    build_layout,
    build_model,
    evaluate_model,
    evaluation_ceiling,
    num_updates,
    training_stream,
)
from echo_torch.callbacks import Bar, MetricsFile, SaveLast, WholeCheckpoints
from echo_torch.evaluation import Evaluation
from echo_torch.experiments import Configuration
from echo_torch.files import UserError, write_text
from echo_torch.lightning_module import EchoModule, LossError
from echo_torch.model import EchoModel
from echo_torch.results import RunDirectory, to_yaml, weights_sha256
from echo_torch.state import RecurrentModel


def check_machine(configuration: Configuration) -> None:
    """Refuse what this machine cannot do, before anything is made.

    Raises:
        UserError: If a device or a package is missing.
    """
    if configuration.accelerator == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                "--accelerator cuda needs a CUDA device, and PyTorch finds none here. Got cuda; use auto or cpu."
            )
        if (found := torch.cuda.device_count()) < configuration.devices:
            raise UserError(f"--devices must be at most {found}, the CUDA devices here. Got {configuration.devices}.")
    if configuration.devices > (num_lanes := build_layout(configuration).num_lanes):
        raise UserError(
            f"--devices must be at most the number of lanes, {num_lanes}, because a lane stays whole on "
            f"one device. Got {configuration.devices}."
        )
    if configuration.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package that is not installed: pip install 'echo-torch[tensorboard]'.")


def train(
    configuration: Configuration,
    run: RunDirectory,
    *,
    audit: str = "warn",
    progress: bool = False,
    progress_file: IO[str] | None = None,
) -> dict[str, Any]:
    """Train, evaluate and leave everything in the run directory.

    Args:
        configuration: What to compute.
        run: Where the files go; it must be new.
        audit: What happens where a lane's state belongs to another place than its next chunk: "raise", "warn" or
            "count". result.json holds the histogram in any case.
        progress: Whether a progress bar is drawn.
        progress_file: Where; None: standard error.

    Returns:
        What result.json holds.

    Raises:
        UserError: If the machine or the directory does not allow it; then nothing is left behind.
    """
    check_machine(configuration)
    torch.set_num_threads(configuration.threads)
    model = build_model(configuration)
    module = build_module(configuration, model)
    run.create()
    write_text(run.config, to_yaml(configuration))
    begin = time.perf_counter()
    with quiet_lightning():
        check = StateAudit(audit)
        callbacks = [check, SaveLast(run.checkpoint), *([Bar(configuration.mode, progress_file)] if progress else [])]
        trainer = build_trainer(configuration, callbacks, build_loggers(configuration, run))
        _fit(trainer, module, ChunkData(configuration), run, configuration.seed)
    seconds = time.perf_counter() - begin
    updates = num_updates(configuration)
    result = {
        "mode": configuration.mode,
        "seed": configuration.seed,
        **evaluation_result(configuration, evaluate_model(configuration, model)),
        "updates": updates,
        "seconds": round(seconds, 3),
        "updates_per_second": round(updates / seconds, 1),
        "gaps": {str(gap): number for gap, number in check.gaps.items()},
        "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        "weights_sha256": weights_sha256(model.state_dict()),
        "config": configuration.to_dict(),
        "versions": _versions(),
    }
    run.write_result(result)
    return result


def evaluation_result(configuration: Configuration, evaluation: Evaluation) -> dict[str, Any]:
    """The part of result.json that an evaluation makes."""
    low, high = evaluation.interval or (None, None)
    return {
        "accuracy": evaluation.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": evaluation.loss,
        "chance": 1 / configuration.vocabulary_size,
        "ceiling": evaluation_ceiling(configuration),
        "targets": evaluation.asked,
    }


def _fit(trainer: pl.Trainer, module: EchoModule, data: pl.LightningDataModule, run: RunDirectory, seed: int) -> None:
    try:
        trainer.fit(module, data)
    except LossError as error:
        kept = f"{str(run.checkpoint)!r} holds what was good" if run.checkpoint.exists() else "none was saved before"
        raise UserError(f"{error} Seed {seed}; of checkpoints, {kept}.") from None
    except SystemExit:
        # Lightning turns Ctrl-C into exit code 1.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def build_module(configuration: Configuration, model: RecurrentModel[Any]) -> EchoModule:
    """The model with its optimiser."""
    # Keras divides by a square root plus 1e-7, PyTorch by one plus 1e-8.
    epsilon = 1e-7 if configuration.init == "keras" else 1e-8
    return EchoModule(model, learning_rate=configuration.learning_rate, epsilon=epsilon)


def build_loggers(configuration: Configuration, run: RunDirectory) -> list[Logger]:
    """What takes the rows of metrics."""
    loggers: list[Logger] = [MetricsFile(run.metrics, build_layout(configuration).drawn)]
    if configuration.tensorboard:
        loggers.append(pl.loggers.TensorBoardLogger(run.path, name="", version="tensorboard"))
    return loggers


def build_trainer(
    configuration: Configuration, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Lightning's Trainer for a configuration; by itself it writes and draws nothing."""
    several = configuration.devices > 1
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(configuration.accelerator, configuration.accelerator),
        devices=configuration.devices,
        # Spawned, not started anew: the processes get this configuration and this directory, not the command line.
        strategy="ddp_spawn" if several else "auto",
        max_steps=num_updates(configuration),
        gradient_clip_val=configuration.clip_norm,
        log_every_n_steps=configuration.log_every,
        logger=list(loggers),
        callbacks=list(callbacks),
        plugins=[WholeCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


class ChunkData(pl.LightningDataModule):
    """Gives every rank its lanes: only when the loader is asked for is the rank known."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self._configuration = configuration

    def train_dataloader(self) -> Any:
        """The training stream, or this rank's share of it."""
        assert self.trainer is not None
        stream = training_stream(self._configuration, rank=self.trainer.global_rank, num_ranks=self.trainer.world_size)
        return stream.loader(num_workers=self._configuration.workers)


def load_model(run: RunDirectory) -> tuple[Configuration, EchoModel]:
    """The configuration of a run and its network with the trained weights, on the CPU.

    Raises:
        UserError: If the directory holds no run, or its checkpoint cannot be read or belongs to another network.
    """
    configuration = run.read_config()
    model = build_model(configuration)
    try:
        checkpoint = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        weights = checkpoint["state_dict"].items()
        model.load_state_dict({name.removeprefix("model."): value for name, value in weights})
    except FileNotFoundError:
        raise UserError(f"{str(run.path)!r} holds no checkpoint; the run ended before one was saved.") from None
    except Exception as error:
        # A damaged file can raise almost anything, from UnpicklingError to KeyError.
        raise UserError(
            f"{str(run.checkpoint)!r} cannot be read as this run's checkpoint ({type(error).__name__})."
        ) from None
    return configuration, model


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's remarks about this machine and its tips out of the output; errors still come through."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            logger.setLevel(level)


_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # one process makes the data in 1 % of an update
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 calls torch by an old name
    ".*GPU available but not used.*",  # --accelerator cpu is a choice
)
