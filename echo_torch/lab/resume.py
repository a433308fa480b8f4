"""How a run goes on: from which checkpoint, whether it fits, and what is said when a training ends before its time."""

from __future__ import annotations

import contextlib
import platform
import shlex
import signal
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echo_torch.errors import Interrupted, UserError
from echo_torch.experiments.configuration import Configuration, configure, differences
from echo_torch.files import WriteError, write_text
from echo_torch.lab.plan import data_digest, num_updates
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.yaml_files import to_yaml
from echo_torch.ranks import is_first_rank
from echo_torch.training.checkpoints import CheckpointWarning, make_latest, newest_checkpoint, read_checkpoint
from echo_torch.training.module import CHECKPOINT_KEY, EchoModule, LossError
from echo_torch.training.saving import RUN_KEY, SaveLast


def find_start(configuration: Configuration, run: RunDirectory, resume: str | Path | None) -> Path | None:
    """The checkpoint that a training goes on from; None: it begins anew.

    Raises:
        UserError: If there are some but none can be read, or it belongs to another configuration.
    """
    if resume is None:
        return None
    if resume == "auto":
        latest = newest_checkpoint(run.checkpoint) if run.path.is_dir() else None
        if latest is None:
            if run.config.exists():
                check_same(run.read_config(), configuration, f"The run in {str(run.path)!r}")
            else:
                run.check_free()
            return None
        resume = latest
    checkpoint = read_checkpoint(resume)
    path = Path(resume)
    saved, versions = configuration_of(checkpoint, path)
    check_same(saved, configuration, f"The checkpoint {str(path)!r}")
    if len(checkpoint[CHECKPOINT_KEY]["ranks"]) != configuration.devices:
        raise UserError(f"The checkpoint {str(path)!r} is not one of {configuration.devices} processes.")
    if checkpoint[RUN_KEY].get("data") != data_digest(configuration):
        raise UserError(
            f"{configuration.data!r} has changed since {str(path)!r} was written; a run goes on with its data."
        )
    now = current_versions()
    if changed := [f"{name} {versions[name]} (now {now[name]})" for name in now if versions[name] != now[name]]:
        warnings.warn(
            f"The checkpoint was written with {', '.join(changed)}: the run goes on, but not bit for bit as planned.",
            CheckpointWarning,
            stacklevel=2,
        )
    return path


def check_same(saved: Configuration, now: Configuration, what: str) -> None:
    """Refuse to go on with another configuration than the saved one.

    Args:
        saved: Of the run that is to go on.
        now: The one that is wanted.
        what: Whose the saved one is, for the error.

    Raises:
        UserError: If they differ in more than a training that is longer now.
    """
    if found := differences(saved, now):
        raise UserError(
            f"{what} cannot be continued with other options, or it would be another training: {', '.join(found)}. "
            "`sequences` or `updates` alone may grow."
        )


def configuration_of(checkpoint: Mapping[str, Any], path: Path) -> tuple[Configuration, dict[str, str]]:
    """The configuration and the versions that a checkpoint was written with."""
    try:
        note = checkpoint[RUN_KEY]
        carried = checkpoint[CHECKPOINT_KEY]
        if not isinstance(carried["cursor"], int) or carried["cursor"] != checkpoint["global_step"]:
            raise ValueError("the stream's place is not that of the update")
        versions = {name: str(note["versions"][name]) for name in current_versions()}
        len(carried["ranks"])
        return configure(**note["config"]), versions
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"The checkpoint {str(path)!r} is not one of a run here: {error}.") from None


def prepare(configuration: Configuration, run: RunDirectory, start: Path | None) -> int:
    """Bring the directory to where the training begins, and say at which update that is."""
    made = 0 if start is None else int(read_checkpoint(start)["global_step"])
    if is_first_rank():
        rows = run.rows_up_to(configuration, made, is_complete=made == num_updates(configuration))
        if start is not None:
            make_latest(start, run.checkpoint)
        run.cut_back(rows)
        write_text(run.config, to_yaml(configuration))
    return made


def where_it_begins(configuration: Configuration, run: RunDirectory, made: int) -> str:
    """A sentence about a resumed run, of which so many updates were made."""
    total = num_updates(configuration)
    if made == 0:
        return f"Nothing was saved in {str(run.path)!r} yet: the run begins from the beginning."
    if made == total:
        return f"The training is complete at update {made:,}: it is evaluated again."
    return f"The run goes on after update {made:,} of {total:,}."


@contextlib.contextmanager
def told(run: RunDirectory, configuration: Configuration, start: Path | None, saver: SaveLast) -> Iterator[None]:
    """What ends a training before its time, in a sentence that says what is kept and how to go on."""
    try:
        yield
    except LossError as error:
        raise UserError(f"{error} Seed {configuration.seed}; {_what_is_kept(run)}.") from None
    except WriteError as error:
        raise UserError(f"{error} The training has stopped; {_what_is_kept(run)}.") from None
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(number, f"Interrupted; {_what_is_kept(run)}. {_how(run)}.") from None
    except Exception as error:
        if "DataLoader worker" in str(error):
            raise killed(run, "A loader process was killed, perhaps for want of memory.") from None
        if start is None or saver.has_begun:
            raise
        # Its digest is right but somebody made it so: what it holds does not fit together.
        raise UserError(
            f"The checkpoint {str(start)!r} cannot be continued from ({type(error).__name__}: {error})."
        ) from error


def killed(run: RunDirectory, what: str) -> UserError:
    """The error of a run that lost one of its processes."""
    kept = _what_is_kept(run)
    return UserError(f"{what} {kept[0].upper()}{kept[1:]}. {_how(run)}.")


def _how(run: RunDirectory) -> str:
    return f"Go on with --run-dir {shlex.quote(str(run.path))} --resume auto and the same options"


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


def check_optimizer(module: EchoModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint that does not hold Adam's moments of this network's weights.

    Raises:
        UserError: If it does not.
    """
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


def note_for(configuration: Configuration) -> dict[str, Any]:
    """What a checkpoint says of its run, so that it can be seen whether another one may go on with it."""
    return {
        "config": configuration.to_dict(),
        "versions": current_versions(),
        "data": data_digest(configuration),
    }


def current_versions() -> dict[str, str]:
    """What the bits of a result depend on, beside the machine."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pytorch_lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }
