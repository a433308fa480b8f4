"""From a configuration to a finished run directory: the only place that builds a training."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import platform
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger

from echo_torch.audit import StateAudit, StateWarning
from echo_torch.builders import (
    build_layout,
    build_model,
    evaluate_model,
    evaluation_ceiling,
    evaluation_stream,
    num_updates,
    training_stream,
)
from echo_torch.callbacks import RUN_KEY, Bar, MetricsFile, SaveLast, WholeCheckpoints
from echo_torch.checkpoints import CheckpointWarning, make_latest, newest_checkpoint, read_checkpoint
from echo_torch.evaluation import Evaluation
from echo_torch.experiments import Configuration, configure, differences, in_flags
from echo_torch.files import UserError, WriteError, write_text
from echo_torch.lightning_module import CHECKPOINT_KEY, EchoModule, LossError
from echo_torch.model import EchoModel
from echo_torch.ranks import Interrupted, is_first_rank, launched_ranks, run_ranks
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
        made = _prepare(configuration, run, start)
        if resume is not None:
            say(_where_it_begins(configuration, run, made))
        if configuration.devices > 1 and launched_ranks() is None:
            run_ranks(_train_one_of_several, (configuration, run, start, audit, progress), configuration.devices)
            result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
            return result
        return _train(configuration, run, start, audit, progress)


def find_start(configuration: Configuration, run: RunDirectory, resume: str | Path | None) -> Path | None:
    """The checkpoint that a training goes on from; None: it begins anew.

    Raises:
        UserError: If there are some but none can be read, or it belongs to another configuration.
    """
    if resume is None:
        return None
    if resume != "auto":
        path: Path | None = Path(resume) if "://" not in str(resume) else None
        checkpoint = read_checkpoint(resume)
    else:
        path = newest_checkpoint(run.checkpoint) if run.path.is_dir() else None
        if path is None:
            if run.config.exists():
                _check_same(run.read_config(), configuration, f"The run in {str(run.path)!r}")
            else:
                run.check_free()
            return None
        checkpoint = read_checkpoint(path)
    assert path is not None
    saved, versions = _configuration_of(checkpoint, path)
    _check_same(saved, configuration, f"The checkpoint {str(path)!r}")
    if len(checkpoint[CHECKPOINT_KEY]["ranks"]) != configuration.devices:
        raise UserError(f"The checkpoint {str(path)!r} is not one of {configuration.devices} processes.")
    now = _versions()
    if changed := [f"{name} {versions[name]} (now {now[name]})" for name in now if versions[name] != now[name]]:
        warnings.warn(
            f"The checkpoint was written with {', '.join(changed)}: the run goes on, but not bit for bit as planned.",
            CheckpointWarning,
            stacklevel=2,
        )
    return path


def _check_same(saved: Configuration, now: Configuration, what: str) -> None:
    if found := differences(saved, now):
        raise UserError(
            f"{what} cannot be continued with other options, or it would be another training: {', '.join(found)}. "
            "`sequences` or `updates` alone may grow."
        )


def _configuration_of(checkpoint: Mapping[str, Any], path: Path) -> tuple[Configuration, dict[str, str]]:
    """The configuration and the versions that a checkpoint was written with."""
    try:
        note = checkpoint[RUN_KEY]
        carried = checkpoint[CHECKPOINT_KEY]
        if not isinstance(carried["cursor"], int) or carried["cursor"] != checkpoint["global_step"]:
            raise ValueError("the stream's place is not that of the update")
        versions = {name: str(note["versions"][name]) for name in _versions()}
        len(carried["ranks"])
        return configure(**note["config"]), versions
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"The checkpoint {str(path)!r} is not one of a run here: {error}.") from None


def _prepare(configuration: Configuration, run: RunDirectory, start: Path | None) -> int:
    """Bring the directory to where the training begins, and say at which update that is."""
    made = 0 if start is None else int(read_checkpoint(start)["global_step"])
    if is_first_rank():
        rows = run.rows_up_to(configuration, made, is_complete=made == num_updates(configuration))
        if start is not None:
            make_latest(start, run.checkpoint)
        run.cut_back(rows)
        write_text(run.config, to_yaml(configuration))
    return made


def _where_it_begins(configuration: Configuration, run: RunDirectory, made: int) -> str:
    total = num_updates(configuration)
    if made == 0:
        return f"Nothing was saved in {str(run.path)!r} yet: the run begins from the beginning."
    if made == total:
        return f"The training is complete at update {made:,}: it is evaluated again."
    return f"The run goes on after update {made:,} of {total:,}."


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
        note={"config": configuration.to_dict(), "versions": _versions()},
    )
    made = 0
    if start is not None:
        checkpoint = read_checkpoint(start)
        made = int(checkpoint["global_step"])
        check_weights(model, checkpoint, start)
        _check_optimizer(module, checkpoint, start)
    with quiet_lightning():
        callbacks = [check, saver, *([Bar(configuration.mode)] if progress else [])]
        trainer = build_trainer(configuration, callbacks, build_loggers(configuration, run, made))
        with _told(run, configuration, start, saver):
            _fit(trainer, module, ChunkData(configuration), start)
    seconds = saver.seconds
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
    if is_first_rank():
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


def _fit(trainer: pl.Trainer, module: EchoModule, data: pl.LightningDataModule, start: Path | None) -> None:
    try:
        trainer.fit(module, data, ckpt_path=start)
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit code 1.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


@contextlib.contextmanager
def _told(run: RunDirectory, configuration: Configuration, start: Path | None, saver: SaveLast) -> Iterator[None]:
    """What ends a training before its time, in a sentence that says what is kept and how to go on."""
    try:
        yield
    except LossError as error:
        raise UserError(f"{error} Seed {configuration.seed}; {_what_is_kept(run)}.") from None
    except WriteError as error:
        raise UserError(f"{error} The training has stopped; {_what_is_kept(run)}.") from None
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        how = f"go on with --run-dir {shlex.quote(str(run.path))} --resume auto and the same options"
        raise Interrupted(number, f"Interrupted; {_what_is_kept(run)}; {how}.") from None
    except Exception as error:
        if start is None or saver.has_begun:
            raise
        # Its digest is right but somebody made it so: what it holds does not fit together.
        raise UserError(
            f"The checkpoint {str(start)!r} cannot be continued from ({type(error).__name__}: {error})."
        ) from error


def _what_is_kept(run: RunDirectory) -> str:
    """The latest good checkpoint in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        try:
            path = newest_checkpoint(run.checkpoint)
        except UserError:
            path = None
    if path is None:
        return "no checkpoint was saved before"
    return f"update {read_checkpoint(path)['global_step']:,} is saved in {str(path)!r}"


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
    saved, _ = _configuration_of(checkpoint, path)
    _check_same(saved, configuration, f"The checkpoint {str(path)!r}")
    check_weights(model, checkpoint, path)
    weights = checkpoint["state_dict"].items()
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights})
    return configuration, model


def check_weights(model: torch.nn.Module, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint whose weights are not this network's in name, shape and type.

    Raises:
        UserError: If they are not.
    """
    needed = {f"model.{name}": _kind(value) for name, value in model.state_dict().items()}
    weights = checkpoint.get("state_dict")
    found = {name: _kind(value) for name, value in weights.items()} if isinstance(weights, dict) else {}
    if found != needed:
        name = next(name for name in [*needed, *found] if needed.get(name) != found.get(name))
        raise UserError(
            f"The checkpoint {str(path)!r} belongs to another network: {name} must be "
            f"{needed.get(name, 'absent')}. Got {found.get(name, 'none')}."
        )


def _check_optimizer(module: EchoModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    trained = [weights for weights in module.parameters() if weights.requires_grad]
    needed = {
        number: {"step": _kind(torch.tensor(0.0)), "exp_avg": _kind(weights), "exp_avg_sq": _kind(weights)}
        for number, weights in enumerate(trained)
    }
    try:
        (optimizer,) = checkpoint["optimizer_states"]
        found = {number: {n: _kind(v) for n, v in moments.items()} for number, moments in optimizer["state"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        found = {}
    if found != needed:
        raise UserError(f"The checkpoint {str(path)!r} does not hold what Adam remembers of this network's weights.")


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pytorch_lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }


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
