"""How a run goes on: from which checkpoint, whether it fits, and what is said when a training ends before its time."""

from __future__ import annotations

import contextlib
import shlex
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from echo_torch.errors import Interrupted, RuleError, UserError, plain
from echo_torch.files import MovedError, WriteError, write_text
from echo_torch.lab.finished import (
    check_allowed,
    check_data,
    check_same,
    check_source,
    check_weights,
    configuration_of,
    current_versions,
    kind_of,
)
from echo_torch.lab.meeting import is_lost_connection
from echo_torch.lab.memory import is_out_of_memory
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.yaml_files import SOURCE_KEY, to_yaml
from echo_torch.models.state import StateForm
from echo_torch.ranks import is_first_rank
from echo_torch.training.bodies import LossError, row_of
from echo_torch.training.checkpoints import (
    CHECKPOINT_KEY,
    RUN_KEY,
    Checkpoint,
    CheckpointError,
    CheckpointWarning,
    load_checkpoint,
    make_latest,
    newest_checkpoint,
)
from echo_torch.training.metrics_table import MetricsTable

if TYPE_CHECKING:
    from echo_torch.training.saving import SaveLast  # brings Lightning


class LostError(UserError):
    """A training has ended because its loss or its weights are no numbers any more.

    Attributes:
        update: At which it was seen, from 1.
    """

    update = 0


def find_start(
    plan: Plan, run: RunDirectory, resume: str | Path | None, *, allow_changed_model: bool = False
) -> Checkpoint | None:
    """The checkpoint that a training goes on from; None: it begins anew.

    Raises:
        UserError: If there are some but none can be read, or it belongs to another configuration or source.
    """
    check_allowed(plan, is_allowed=allow_changed_model)
    if resume is None:
        if allow_changed_model:
            raise RuleError("allow_changed_model", "$allow_changed_model has an effect only together with $resume")
        return None
    configuration = plan.configuration
    if resume == "auto":
        start = newest_checkpoint(run.checkpoint, lambda checkpoint: _check_rows(plan, run, checkpoint))
        if start is None:
            _check_begins(plan, run, is_allowed=allow_changed_model)
            return None
    else:
        start = load_checkpoint(resume)
        _check_holds_no_other(plan, run, is_allowed=allow_changed_model)
        _check_rows(plan, run, start)
    what = f"The checkpoint {str(start.path)!r}"
    _, versions = configuration_of(start)
    check_source(start.contents[RUN_KEY].get(SOURCE_KEY), plan, what, is_allowed=allow_changed_model)
    if len(start.contents[CHECKPOINT_KEY]["ranks"]) != configuration.devices:
        raise UserError(f"The checkpoint {str(start.path)!r} is not one of {configuration.devices} processes.")
    check_data(plan, start)
    _check_fit(plan, start)
    now = current_versions()
    if changed := [f"{name} {versions[name]} (now {now[name]})" for name in now if versions[name] != now[name]]:
        warnings.warn(
            f"The checkpoint was written with {', '.join(changed)}: the run goes on, but not bit for bit as planned.",
            CheckpointWarning,
            stacklevel=2,
        )
    return start


def _check_begins(plan: Plan, run: RunDirectory, *, is_allowed: bool) -> None:
    """Refuse a directory without a checkpoint, unless it is free or holds the beginning of this run.

    Raises:
        UserError: If there is something else, or a finished run, of which nothing shall be lost.
    """
    if not run.config.exists():
        run.check_free()
        return
    _check_holds_no_other(plan, run, is_allowed=is_allowed)
    if run.result.exists():
        raise UserError(
            f"The run in {str(run.path)!r} is finished but its checkpoints are gone, so it cannot go on, and no "
            "finished run is overwritten.",
            "Train it anew with another $run.",
        )


def _check_holds_no_other(plan: Plan, run: RunDirectory, *, is_allowed: bool) -> None:
    """Refuse a directory that holds another run than the one that goes on.

    Raises:
        UserError: If it does.
    """
    if run.config.exists():
        what = f"The run in {str(run.path)!r}"
        saved, source = run.read_saved()
        check_same(saved, plan.configuration, what)
        check_source(source, plan, what, is_allowed=is_allowed)
    elif (own := newest_checkpoint(run.checkpoint)) is not None:
        check_same(configuration_of(own)[0], plan.configuration, f"The run in {str(run.path)!r}")
    elif run.result.exists():
        run.check_free()  # it says why not


def _check_rows(plan: Plan, run: RunDirectory, start: Checkpoint) -> None:
    """Refuse a checkpoint of another configuration, or one whose rows are lost.

    Raises:
        RuleError: If it is of another configuration.
        CheckpointError: If a row is missing: one before may be used.
    """
    check_same(configuration_of(start)[0], plan.configuration, f"The checkpoint {str(start.path)!r}")
    try:
        _rows_at(plan, run, start.update)
    except UserError as error:
        raise CheckpointError(error.message, error.way_out) from None


def _rows_at(plan: Plan, run: RunDirectory, made: int) -> dict[Path, str]:
    """The rows that the tables must hold where a training goes on after so many updates.

    Raises:
        UserError: If one is missing.
    """
    c = plan.configuration
    return run.rows_up_to(made, c.log_every, c.validate_every, is_complete=made == plan.num_updates)


def _check_fit(plan: Plan, start: Checkpoint) -> None:
    """Refuse a checkpoint that is not of this network, before anything is changed.

    Raises:
        UserError: If it is not.
    """
    model = plan.model()
    check_weights(model, start)
    check_optimizer(model, start, is_own_model=plan.has_own_model)
    if plan.has_own_model:  # its source may have been changed; of the networks here the state hangs on the weights
        form = StateForm(model.initial_state)
        for rank in start.contents[CHECKPOINT_KEY]["ranks"]:
            if rank["carry"] is not None:
                form.unpack(rank["carry"])


def prepare(plan: Plan, run: RunDirectory, start: Checkpoint | None) -> int:
    """Bring the directory to where the training begins, and say at which update that is."""
    made = 0 if start is None else start.update
    if is_first_rank():
        rows = _rows_at(plan, run, made)
        if start is not None:
            make_latest(start.path, run.checkpoint)
        run.cut_back(rows)
        if start is not None and made == plan.num_updates:
            _bring_back_rest(plan, run, start)
        write_text(run.config, to_yaml(plan.configuration, plan.model_digest))
    return made


def _bring_back_rest(plan: Plan, run: RunDirectory, end: Checkpoint) -> None:
    """Write the row of the last updates again, which a longer training took back before it was given up."""
    counts = end.contents[CHECKPOINT_KEY]["ranks"][0].get("pooled")
    if counts is None or counts.shape != (3,) or run.last_update() == end.update:
        return
    row = {**row_of(counts), "targets": float(counts[2])}
    MetricsTable(run.metrics, plan.layout.drawn).append(end.update, row)


def where_it_begins(run: RunDirectory, made: int, total: int) -> str:
    """A sentence about a resumed run, of which so many updates were made."""
    if made == 0:
        return f"Nothing was saved in {str(run.path)!r} yet: the run begins from the beginning."
    if made == total:
        return f"The training is complete at update {made:,}: it is evaluated again."
    return f"The run goes on after update {made:,} of {total:,}."


@contextlib.contextmanager
def ends_in_a_sentence(run: RunDirectory, seed: int, start: Path | None, saver: SaveLast) -> Iterator[None]:
    """What ends a training before its time, in a sentence that says what is kept and how to go on."""
    try:
        yield
    except LossError as error:
        lost = LostError(f"{error} Seed {seed}; {what_is_kept(run)}.")
        lost.update = error.update
        raise lost from None
    except MovedError as error:
        raise UserError(f"{error} The training has stopped; what it saved went with it.") from None
    except WriteError as error:
        raise UserError(f"{error} The training has stopped; {what_is_kept(run)}.") from None
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(number, f"Interrupted; {what_is_kept(run)}.", how_to_go_on(run)) from None
    except Exception as error:
        if is_out_of_memory(error) or is_lost_connection(error):
            raise  # whoever knows the configuration, or the other processes, says more
        if "DataLoader worker" in str(error):
            raise killed_process_error(run, "A loader process was killed, perhaps for want of memory.") from None
        if start is None or saver.has_begun:
            raise
        # Its digest is right but somebody made it so: what it holds does not fit together.
        raise UserError(
            f"The checkpoint {str(start)!r} cannot be continued from ({type(error).__name__}: {error})."
        ) from error


def killed_process_error(run: RunDirectory, what: str) -> UserError:
    """The error of a run that lost one of its processes."""
    kept = what_is_kept(run)
    return UserError(f"{what} {kept[0].upper()}{kept[1:]}.", how_to_go_on(run))


def and_what_is_kept(run: RunDirectory, sentence: str) -> str:
    """A sentence about the end of a run, and what is kept of it."""
    try:
        return killed_process_error(run, sentence).message
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # There is not enough to look at it either.
        return f"{sentence} What was saved before is in {str(run.checkpoint.parent)!r}."


def how_to_go_on(run: RunDirectory) -> str:
    """The way to continue a run, as of `RuleError`."""
    return f"Go on with $run {plain(shlex.quote(str(run.path)))} $resume auto and the same options."


def what_is_kept(run: RunDirectory) -> str:
    """The latest good checkpoint in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        try:
            kept = newest_checkpoint(run.checkpoint)
        except UserError:
            kept = None
    if kept is None:
        return "no checkpoint was saved before"
    return f"update {kept.update:,} is saved in {str(kept.path)!r}"


def check_optimizer(model: torch.nn.Module, checkpoint: Checkpoint, *, is_own_model: bool = False) -> None:
    """Refuse a checkpoint that does not hold Adam's moments of this network's weights.

    Args:
        model: Its network.
        checkpoint: The checkpoint.
        is_own_model: Whether it may have weights that no gradient has reached, and so no moments.

    Raises:
        UserError: If it does not.
    """
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    needed = {
        number: {"step": kind_of(torch.tensor(0.0)), "exp_avg": kind_of(weights), "exp_avg_sq": kind_of(weights)}
        for number, weights in enumerate(trained)
    }
    try:
        (optimizer,) = checkpoint.contents["optimizer_states"]
        found = {number: {n: kind_of(v) for n, v in moments.items()} for number, moments in optimizer["state"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        found = {-1: {}}
    if is_own_model:
        needed = {number: kinds for number, kinds in needed.items() if number in found}
    if found != needed:
        raise UserError(
            f"The checkpoint {str(checkpoint.path)!r} does not hold what Adam remembers of this network's weights."
        )


def note_for(plan: Plan) -> dict[str, Any]:
    """What a checkpoint says of its run, so that it can be seen whether another one may go on with it."""
    source = {} if plan.model_digest is None else {SOURCE_KEY: plan.model_digest}
    return {"config": plan.configuration.to_dict(), "versions": dict(current_versions()), "data": plan.digest, **source}
