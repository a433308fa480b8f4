"""The run directories of a sweep: which ones it made itself, and may begin anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from echo_torch.errors import UserError
from echo_torch.files import read_bytes, unfinished, write_text
from echo_torch.lab.kernels import begun_plan
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.yaml_files import MAX_CONFIG_BYTES, to_yaml

_MARK = "sweep.yaml"  # what config.yaml held when a sweep made the directory


def check_may_begin(run: RunDirectory) -> None:
    """Refuse a directory that holds something which no sweep made: nothing of it is ever removed.

    Raises:
        UserError: If it does.
    """
    if not any(_files(run)) or _is_own(run):
        return
    raise UserError(
        f"{str(run.path)!r} holds files that no sweep made, such as {min(path.name for path in _files(run))!r}, and "
        "none of them is removed.",
        "Move it away, or choose another $run.",
    )


def begin(run: RunDirectory, plan: Plan) -> bool:
    """Make a directory, or leave one as it is where its run can go on; else what a sweep made of it is removed.

    Returns:
        Whether the run begins: its directory holds nothing but its configuration.

    Raises:
        UserError: If it cannot go on and holds something that no sweep made.
    """
    run.create()
    with run.lock():
        check_may_begin(run)
        if _is_own(run) and _can_go_on(run, plan):
            return False
        if strangers := sorted(path.name for path in _files(run) if path not in _made(run)):
            raise UserError(
                f"The run in {str(run.path)!r} cannot go on, and {strangers[0]!r} there was not made by a sweep, so "
                "nothing is removed.",
                "Move it away, or choose another $run.",
            )
        for path in _made(run):
            path.unlink(missing_ok=True)
        text = to_yaml(begun_plan(plan).configuration, plan.model_digest)
        write_text(run.path / _MARK, text)  # first: a kill between the two leaves nothing that seems a person's
        write_text(run.config, text)
    return True


def _can_go_on(run: RunDirectory, plan: Plan) -> bool:
    from echo_torch.lab.resume import find_start

    try:
        find_start(plan, run, "auto")
    except UserError:
        return False
    return True


def _is_own(run: RunDirectory) -> bool:
    """Whether a sweep made it, and nobody has trained anything else there since."""
    try:
        mark = read_bytes(run.path / _MARK, MAX_CONFIG_BYTES)
        return not run.config.exists() or read_bytes(run.config, MAX_CONFIG_BYTES) == mark
    except OSError:
        return False


def _files(run: RunDirectory) -> Iterator[Path]:
    return (path for path in run.path.rglob("*") if path.is_symlink() or not path.is_dir())


def _made(run: RunDirectory) -> list[Path]:
    """What a run of a sweep can hold; the mark last."""
    whole = [*run.files, run.path / _MARK]
    return [*(left for path in whole for left in unfinished(path)), *whole]
