"""From a configuration to a finished run directory: the only place that builds a training."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger

from echo_torch.diagnosis.audit import StateAudit, StateWarning
from echo_torch.experiments.configuration import Configuration, in_flags
from echo_torch.files import UserError
from echo_torch.lab.plan import (
    build_layout,
    build_model,
    evaluate_model,
    evaluation_ceiling,
    evaluation_stream,
    num_updates,
    training_stream,
)
from echo_torch.lab.resume import (
    check_optimizer,
    check_same,
    check_weights,
    configuration_of,
    current_versions,
    find_start,
    killed,
    note_for,
    prepare,
    told,
    where_it_begins,
)
from echo_torch.lab.run_directory import RunDirectory, weights_sha256
from echo_torch.models.networks import EchoModel
from echo_torch.models.state import RecurrentModel
from echo_torch.ranks import KilledError, is_first_rank, launched_ranks, run_ranks
from echo_torch.training.callbacks import Bar, MetricsFile, SaveLast, WholeCheckpoints
from echo_torch.training.checkpoints import CheckpointWarning, newest_checkpoint, read_checkpoint
from echo_torch.training.module import EchoModule


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


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings of the audit and the checkpoints as lines above the progress bar, without a place in the source."""
    from tqdm import tqdm

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(message: Any, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, (StateWarning, CheckpointWarning)):
                tqdm.write(f"warning: {in_flags(str(message))}", file=sys.stderr)
            else:
                show(message, category, *rest)

        for category in (StateWarning, CheckpointWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show_line  # type: ignore[assignment]  # `rest` is all that it need not know
        yield


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's remarks about this machine and its tips out of the output; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # one process makes the data in 1 % of an update
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 calls torch by an old name
    ".*have no `val_dataloader`.*",  # a validation is a choice
    ".*GPU available but not used.*",  # --accelerator cpu is a choice
)
