"""From a configuration to a finished run directory: the only place that builds a training."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint as CheckpointCallback
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.loggers.logger import Logger

from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.errors import RuleError
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.options import is_own_model
from echo_torch.files import Place
from echo_torch.lab import memory, output
from echo_torch.lab.agreement import check_agreement, found_by_all
from echo_torch.lab.console import quiet_lightning, warnings_as_lines
from echo_torch.lab.finished import evaluation_result, result_of
from echo_torch.lab.kernels import adam_options, begun_plan, check_callbacks, resumed_plan
from echo_torch.lab.machine import check_machine
from echo_torch.lab.meeting import RENDEZVOUS_TIMEOUT, check_timeout, meet, together, wait_for_the_first
from echo_torch.lab.pictures import check_figures, forms_of, picture, remove_other_forms
from echo_torch.lab.plan import Plan
from echo_torch.lab.processes import KilledError, run_ranks
from echo_torch.lab.report import bounds_in_words
from echo_torch.lab.resume import (
    and_what_is_kept,
    ends_in_a_sentence,
    find_start,
    killed_process_error,
    note_for,
    prepare,
    where_it_begins,
)
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.surroundings import in_own_surroundings, own_surroundings
from echo_torch.lab.trainers import plain_trainer
from echo_torch.models.networks import EchoLSTM
from echo_torch.randomness import seeded
from echo_torch.ranks import is_first_rank, launched_rank, launched_ranks, num_devices_here
from echo_torch.training.blocks import BlockEnds, BlockModule
from echo_torch.training.checkpoints import Checkpoint, load_checkpoint
from echo_torch.training.metrics_file import MetricsFile
from echo_torch.training.module import EchoModule
from echo_torch.training.progress import Bar, Line
from echo_torch.training.saving import SaveLast, WholeCheckpoints
from echo_torch.training.stream_data import StreamData
from echo_torch.waiting import Progress, Waiting


@dataclass(frozen=True)
class _Watchers:
    """What goes along with a training.

    Attributes:
        audit: As of `train`, like the others.
    """

    audit: str
    progress: Progress
    loggers: Sequence[Logger]
    callbacks: Sequence[pl.Callback]
    rendezvous_timeout: float

    def check(self, configuration: Configuration) -> None:
        """Refuse what Lightning or several processes could not use, before anything is made.

        Raises:
            RuleError: If there is such a thing.
        """
        for name, kind in (("loggers", Logger), ("callbacks", pl.Callback)):
            given = getattr(self, name)
            if not isinstance(given, Sequence):
                raise RuleError(name, f"${name} must be a list of them", type(given).__name__)
            for one in given:
                kind_of_it = f"{type(one).__module__}.{type(one).__qualname__}"
                if not isinstance(one, kind):
                    raise RuleError(name, f"${name} must be {name} of pytorch_lightning", kind_of_it)
                if configuration.devices > 1 and launched_ranks() is None and not _can_be_pickled(one):
                    rule = f"${name} must be able to go to other processes, of which $devices starts several"
                    raise RuleError(name, rule, f"a {kind_of_it}, which cannot be pickled")
        if self.progress is True and any(isinstance(one, ProgressBar) for one in self.callbacks):
            raise RuleError("callbacks", "$callbacks must hold no progress bar where $progress draws one")
        if any(isinstance(one, ModelCheckpoint) and one.dirpath is None for one in self.callbacks):
            rule = "$callbacks must say where a ModelCheckpoint writes"
            raise RuleError("callbacks", rule, "one without dirpath", reason="because Lightning would choose a place")


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # whatever its parts say
        return False
    return True


@in_own_surroundings
def train(
    configuration: Configuration | Plan,
    run: RunDirectory,
    *,
    audit: str = "warn",
    progress: Progress = False,
    resume: str | Path | None = None,
    allow_changed_model: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
    say: Callable[[str], None] = lambda line: None,
    begin: Callable[[], None] = lambda: None,
    curve: bool = False,
    figures: str = "png",
    rendezvous_timeout: float = RENDEZVOUS_TIMEOUT,
) -> dict[str, Any]:
    """Train, evaluate and leave everything in the run directory.

    Several devices are several processes, unless a launcher such as torchrun has started them already. Each gets a copy
    of the loggers and callbacks.

    It may be called in any thread, and in several at once, each with a directory of its own and the same `threads`. A
    model of a user's own must train alone in its process: no other thread may draw random numbers meanwhile. What a
    thread has switched on around it, such as autocast or a default device, has no effect on it.

    Args:
        configuration: What to compute, or the plan of it where that is made already.
        run: Where the files go.
        audit: What happens where a lane's state belongs to another place than its next chunk: "raise", "warn" or
            "count". result.json holds the histogram in any case.
        progress: Whether progress bars are drawn on standard error, of the training and of what takes longer than two
            seconds beside it; "line": sentences say instead how long each takes.
        resume: "auto" continues the run in `run` from its latest checkpoint, or begins it where there is none; a path
            continues it from that checkpoint; None begins a new one, and the directory must be new or empty.
        allow_changed_model: Whether a run with a user's own model goes on although the file that defines it changed.
        loggers: Lightning's, beside the run's own: each gets every row of metrics.csv and validation.csv, under the
            names of `EchoModule`.
        callbacks: Lightning's, beside the run's own. One that ends the training early ends it well.
        say: Is told in a sentence where a resumed run begins, and that other processes are waited for.
        begin: Is called once, when nothing is left that could be refused, and before anything is computed.
        curve: Whether curve.png is drawn: loss and accuracy over the training.
        figures: "svg" draws curve.svg instead.
        rendezvous_timeout: How many seconds the processes of one training wait until all of them are there.

    Returns:
        What result.json holds.

    Raises:
        UserError: If the machine, the model, the directory, the checkpoint or what surrounds the call does not allow
            it, or if other processes of it do not come; then nothing is changed. If a file cannot be written or a
            number is not finite; then the last checkpoint is kept.
        Interrupted: At Ctrl-C and SIGTERM; it says how to go on.
    """
    plan = configuration if isinstance(configuration, Plan) else Plan(configuration)
    watchers = _Watchers(audit, progress, loggers, callbacks, check_timeout(rendezvous_timeout))
    drawn = picture(run.path, "curve", check_figures(figures)) if curve else None
    check_machine(plan)
    watchers.check(plan.configuration)
    with contextlib.ExitStack() as stack:
        # First of all: what another one of several still writes belongs to a try before, and is not looked at.
        meet(_backend(plan.configuration), watchers.rendezvous_timeout, say)
        stack.enter_context(together(partial(killed_process_error, run)))

        def look() -> tuple[Place | None, Checkpoint | None, Plan]:
            # Where the directory is there already, nobody changes it between a look at it and the training.
            place = _lock(stack, run) if run.path.is_dir() else None
            start = find_start(plan, run, resume, allow_changed_model=allow_changed_model)
            found = begun_plan(plan, callbacks) if resume is None else resumed_plan(plan, run, start, callbacks)
            check_callbacks(found, callbacks)
            found.check_data()
            found.check_model()
            return place, start, found

        place, start, plan = found_by_all(look)
        check_agreement(plan, start)
        if is_first_rank():
            if resume is None:
                run.check_free()
            run.create()
        place = place or _lock(stack, run)
        with _as_writer(run):  # what an earlier training has left behind has ended
            made = prepare(plan, run, start)
        begin()
        if resume is not None:
            say(where_it_begins(run, made, plan.num_updates))
        is_alone = plan.configuration.devices == 1 or launched_ranks() is not None
        result = (_train if is_alone else _train_in_processes)(plan, run, start, watchers, place)
        if is_first_rank():
            _draw_curve(plan, run, result, place, progress, drawn)
    return result


def _backend(configuration: Configuration) -> str:
    """What several processes talk by, on the device that Lightning chooses."""
    is_cuda = configuration.accelerator != "cpu" and torch.cuda.is_available()
    return "nccl" if is_cuda else "gloo"


def _lock(stack: contextlib.ExitStack, run: RunDirectory) -> Place | None:
    """Lock the directory for the first rank, until the stack ends."""
    return stack.enter_context(run.lock()) if is_first_rank() else None


def _as_writer(run: RunDirectory) -> contextlib.AbstractContextManager[None]:
    return run.writing() if is_first_rank() else contextlib.nullcontext()


def _draw_curve(
    plan: Plan,
    run: RunDirectory,
    result: dict[str, Any],
    place: Place | None,
    progress: Progress,
    path: Path | None,
) -> None:
    if place is not None:
        place.check()
    if path is None:
        for older in forms_of(run.curve.with_suffix("")):  # that of a shorter training
            older.unlink(missing_ok=True)
        return

    from echo_torch.lab.figures import draw_curve

    with Waiting(f"Drawing {path.name}", None, "pictures", progress=progress):
        draw_curve(run, plan.configuration, result, path)
    remove_other_forms(path)


def _train_in_processes(
    plan: Plan, run: RunDirectory, start: Checkpoint | None, watchers: _Watchers, place: Place | None
) -> dict[str, Any]:
    arguments = (plan.configuration, run, None if start is None else start.path, watchers, place)
    try:
        run_ranks(_train_one_of_several, arguments, plan.configuration.devices)
    except KilledError as error:
        raise killed_process_error(run, str(error)) from None
    return run.read_result()


def _train_one_of_several(
    configuration: Configuration, run: RunDirectory, start: Path | None, watchers: _Watchers, place: Place | None
) -> None:
    with output.that_ends_nothing(), warnings_as_lines(), own_surroundings(configuration):
        meet(_backend(configuration), watchers.rendezvous_timeout)
        checkpoint = None if start is None else load_checkpoint(start)
        _train(Plan(configuration), run, checkpoint, watchers, place)


def _train(
    plan: Plan, run: RunDirectory, start: Checkpoint | None, watchers: _Watchers, place: Place | None
) -> dict[str, Any]:
    """Train and evaluate in this process, alone or as one of several; the first writes."""
    with _as_writer(run):
        result = _trained(plan, run, start, watchers, place)
        if is_first_rank():
            if place is not None:
                place.check()
            run.write_result(result)
    return result


def _trained(
    plan: Plan, run: RunDirectory, start: Checkpoint | None, watchers: _Watchers, place: Place | None
) -> dict[str, Any]:
    c, audit = plan.configuration, watchers.audit
    wait_for_the_first()
    torch.set_num_threads(c.threads)
    if launched_ranks() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(c.threads))  # else Lightning takes what cores there are
    progress = watchers.progress if is_first_rank() else False
    with Waiting("Making the network", None, "networks", progress=progress):
        model = plan.model()
    module = build_module(plan, model)
    # The first rank speaks for all.
    check = StateAudit(audit if is_first_rank() or audit == "raise" else "count")
    note = note_for(plan)
    saver = SaveLast(run.checkpoint, c.checkpoint_every, validate_every=c.validate_every, note=note, place=place)
    path, made = (None, 0) if start is None else (start.path, start.update)
    with quiet_lightning(), _randomness(plan):
        # The saver last: what the others count belongs into the checkpoint.
        callbacks = [check, *watchers.callbacks, saver, *_shown(progress, plan)]
        loggers = [*build_loggers(plan, run, made, place), *watchers.loggers]
        trainer = build_trainer(c, callbacks, loggers, WholeCheckpoints(start))
        with (
            memory.in_a_sentence(c, partial(and_what_is_kept, run)),
            ends_in_a_sentence(run, c.seed, path, saver),
        ):
            _fit(trainer, module, build_data(plan, module), path)
            if trainer.global_step < plan.num_updates:  # a callback has ended it
                saver.save(trainer, module)
            seconds = saver.seconds
            evaluation = evaluation_result(plan, model.eval(), progress=progress)
    return result_of(plan, model, evaluation, updates=trainer.global_step, seconds=seconds, gaps=check.gaps)


def _shown(progress: Progress, plan: Plan) -> list[pl.Callback]:
    if progress is True:
        return [Bar(plan.configuration.mode, beside=bounds_in_words(plan))]
    return [Line()] if progress else []


def _randomness(plan: Plan) -> contextlib.AbstractContextManager[None]:
    """What a user's own model draws in training comes from the seed, of each rank other numbers. Ours draw nothing."""
    if not plan.has_own_model:
        return contextlib.nullcontext()
    return seeded(plan.configuration.seed + launched_rank(), for_long=True)


def _fit(trainer: pl.Trainer, module: EchoModule, data: pl.LightningDataModule, start: Path | None) -> None:
    try:
        trainer.fit(module, data, ckpt_path=start)
    except BaseException as error:
        # Lightning turns Ctrl-C into exit code 1, and stumbles over its own clean-up where nothing was read yet.
        if (interrupt := _interrupt_behind(error)) is not None:
            raise interrupt from None
        raise


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__context__
    return found


def build_module(plan: Plan, model: torch.nn.Module) -> EchoModule:
    """The model with its optimiser."""
    c = plan.configuration
    adam = adam_options(c)
    if c.kernel != "direct":
        return EchoModule(model, **adam)
    every = [number for number in (c.log_every, c.checkpoint_every, c.validate_every) if number is not None]
    return BlockModule(
        cast(EchoLSTM, model),
        BlockEnds(every, plan.num_updates),
        num_answered=plan.num_answered,
        clip_norm=c.clip_norm,
        validate_every=c.validate_every,
        **adam,
    )


def build_data(plan: Plan, module: EchoModule | None = None) -> StreamData:
    """What training and validation read, in batches as the module wants them; without one, a chunk each."""
    ends = module.ends if isinstance(module, BlockModule) else None
    return StreamData(plan.training, plan.evaluation, num_workers=plan.configuration.workers, block=ends)


def build_loggers(plan: Plan, run: RunDirectory, made: int = 0, place: Place | None = None) -> list[Logger]:
    """What takes the rows of metrics, after so many updates, as long as the directory is the one of the training."""
    configuration, drawn = plan.configuration, plan.layout.drawn
    loggers: list[Logger] = [MetricsFile(run.metrics, drawn, place=place)]
    if configuration.validate_every is not None:
        loggers.append(MetricsFile(run.validation, drawn, prefix="validation_", place=place))
    if configuration.tensorboard:
        purge: dict[str, Any] = {"purge_step": made + 1} if made else {}
        loggers.append(pl.loggers.TensorBoardLogger(run.path, name="", version="tensorboard", **purge))
    return loggers


def build_trainer(
    configuration: Configuration,
    callbacks: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
    checkpoints: WholeCheckpoints | None = None,
) -> pl.Trainer:
    """Lightning's Trainer for a configuration; by itself it writes and draws nothing."""
    # Some weights of a user's own model may get no gradient; of the networks here all do.
    several = "ddp_find_unused_parameters_true" if is_own_model(configuration.model) else "ddp"
    return plain_trainer(
        accelerator={"cuda": "gpu"}.get(configuration.accelerator, configuration.accelerator),
        devices=num_devices_here(configuration.devices),
        num_nodes=-(-configuration.devices // num_devices_here(configuration.devices)),
        strategy=several if configuration.devices > 1 else "auto",
        max_steps=configuration.reading.num_updates,
        gradient_clip_val=None if configuration.kernel == "direct" else configuration.clip_norm,
        log_every_n_steps=configuration.log_every,
        val_check_interval=configuration.validate_every,
        check_val_every_n_epoch=None,
        limit_val_batches=0 if configuration.validate_every is None else None,
        num_sanity_val_steps=0,
        logger=list(loggers),
        callbacks=list(callbacks),
        plugins=[checkpoints or WholeCheckpoints()],
        enable_checkpointing=any(isinstance(callback, CheckpointCallback) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
