"""From a configuration to a finished run directory: the only place that builds a training."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger

from echo_torch.diagnosis.audit import StateAudit
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.lab.console import quiet_lightning, warnings_as_lines
from echo_torch.lab.finished import evaluation_result
from echo_torch.lab.plan import (
    build_layout,
    build_model,
    evaluation_stream,
    num_updates,
    training_stream,
)
from echo_torch.lab.processes import KilledError, run_ranks
from echo_torch.lab.resume import (
    check_optimizer,
    check_weights,
    current_versions,
    find_start,
    killed,
    note_for,
    prepare,
    told,
    where_it_begins,
)
from echo_torch.lab.run_directory import RunDirectory, weights_sha256
from echo_torch.models.state import RecurrentModel
from echo_torch.ranks import is_first_rank, launched_ranks
from echo_torch.training.checkpoints import read_checkpoint
from echo_torch.training.metrics_file import MetricsFile
from echo_torch.training.module import EchoModule
from echo_torch.training.progress import Bar
from echo_torch.training.saving import SaveLast, WholeCheckpoints


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
    if (started := launched_ranks()) is not None and started != configuration.devices:
        raise UserError(
            f"--devices must be {started}, the number of processes that the launcher has started. Got "
            f"{configuration.devices}."
        )
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
    resume: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train, evaluate and leave everything in the run directory.

    Several devices are several processes, unless a launcher such as torchrun has started them already.

    Args:
        configuration: What to compute.
        run: Where the files go.
        audit: What happens where a lane's state belongs to another place than its next chunk: "raise", "warn" or
            "count". result.json holds the histogram in any case.
        progress: Whether a progress bar is drawn on standard error.
        resume: "auto" continues the run in `run` from its latest checkpoint, or begins it where there is none; a path
            continues it from that checkpoint; None begins a new one, and the directory must be new or empty.
        say: Is told in a sentence where a resumed run begins.

    Returns:
        What result.json holds.

    Raises:
        UserError: If the machine, the directory or the checkpoint does not allow it; then nothing is changed. If a file
            cannot be written or a number is not finite; then the last checkpoint is kept.
        Interrupted: At Ctrl-C and SIGTERM; it says how to go on.
    """
    check_machine(configuration)
    start = find_start(configuration, run, resume)
    if is_first_rank():
        if resume is None:
            run.check_free()
        run.create()
    with run.locked() if is_first_rank() else contextlib.nullcontext():
        made = prepare(configuration, run, start)
        if resume is not None:
            say(where_it_begins(configuration, run, made))
        if configuration.devices > 1 and launched_ranks() is None:
            try:
                run_ranks(_train_one_of_several, (configuration, run, start, audit, progress), configuration.devices)
            except KilledError as error:
                raise killed(run, str(error)) from None
            return run.read_result()
        return _train(configuration, run, start, audit, progress)


def _train_one_of_several(
    configuration: Configuration, run: RunDirectory, start: Path | None, audit: str, progress: bool
) -> None:
    with warnings_as_lines():
        _train(configuration, run, start, audit, progress)


def _train(
    configuration: Configuration, run: RunDirectory, start: Path | None, audit: str, progress: bool
) -> dict[str, Any]:
    """Train and evaluate in this process, alone or as one of several; the first writes."""
    torch.set_num_threads(configuration.threads)
    model = build_model(configuration)
    module = build_module(configuration, model)
    # The first rank speaks for all.
    check = StateAudit(audit if is_first_rank() or audit == "raise" else "count")
    saver = SaveLast(
        run.checkpoint,
        configuration.checkpoint_every,
        validate_every=configuration.validate_every,
        note=note_for(configuration),
    )
    made = 0
    if start is not None:
        checkpoint = read_checkpoint(start)
        made = int(checkpoint["global_step"])
        check_weights(model, checkpoint, start)
        check_optimizer(module, checkpoint, start)
    with quiet_lightning():
        callbacks = [check, saver, *([Bar(configuration.mode)] if progress else [])]
        trainer = build_trainer(configuration, callbacks, build_loggers(configuration, run, made))
        with told(run, configuration, start, saver):
            _fit(trainer, module, ChunkData(configuration), start)
            seconds = saver.seconds
            evaluation = evaluation_result(configuration, model)
    updates = num_updates(configuration)
    result = {
        "mode": configuration.mode,
        "seed": configuration.seed,
        **evaluation,
        "updates": updates,
        "seconds": round(seconds, 3),
        "updates_per_second": round(updates / seconds, 1),
        "gaps": {str(gap): number for gap, number in check.gaps.items()},
        "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        "weights_sha256": weights_sha256(model.state_dict()),
        "config": configuration.to_dict(),
        "versions": current_versions(),
    }
    if is_first_rank():
        run.write_result(result)
    return result


def _fit(trainer: pl.Trainer, module: EchoModule, data: pl.LightningDataModule, start: Path | None) -> None:
    try:
        trainer.fit(module, data, ckpt_path=start)
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit code 1.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def build_module(configuration: Configuration, model: RecurrentModel[Any]) -> EchoModule:
    """The model with its optimiser."""
    # Keras divides by a square root plus 1e-7, PyTorch by one plus 1e-8.
    epsilon = 1e-7 if configuration.init == "keras" else 1e-8
    return EchoModule(model, learning_rate=configuration.learning_rate, epsilon=epsilon)


def build_loggers(configuration: Configuration, run: RunDirectory, made: int = 0) -> list[Logger]:
    """What takes the rows of metrics, after so many updates."""
    drawn = build_layout(configuration).drawn
    loggers: list[Logger] = [MetricsFile(run.metrics, drawn)]
    if configuration.validate_every is not None:
        loggers.append(MetricsFile(run.validation, drawn, prefix="validation_"))
    if configuration.tensorboard:
        purge: dict[str, Any] = {"purge_step": made + 1} if made else {}
        loggers.append(pl.loggers.TensorBoardLogger(run.path, name="", version="tensorboard", **purge))
    return loggers


def build_trainer(
    configuration: Configuration, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Lightning's Trainer for a configuration; by itself it writes and draws nothing."""
    several = configuration.devices > 1
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(configuration.accelerator, configuration.accelerator),
        devices=configuration.devices,
        strategy="ddp" if several else "auto",
        max_steps=num_updates(configuration),
        gradient_clip_val=configuration.clip_norm,
        log_every_n_steps=configuration.log_every,
        val_check_interval=configuration.validate_every,
        check_val_every_n_epoch=None,
        limit_val_batches=0 if configuration.validate_every is None else None,
        num_sanity_val_steps=0,
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
        """The training stream from where the module stands, or this rank's share of it."""
        assert self.trainer is not None
        start = getattr(self.trainer.lightning_module, "cursor", 0)
        return training_stream(self._configuration, start=start, **self._shard()).loader(
            num_workers=self._configuration.workers
        )

    def val_dataloader(self) -> Any:
        """The evaluation's stream, or this rank's share of it."""
        return evaluation_stream(self._configuration, **self._shard()).loader()

    def _shard(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "num_ranks": self.trainer.world_size}
