"""Many runs at once, over the cores: finished runs are kept, so an interrupted sweep goes on where it was."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from echo_torch.errors import ENDINGS, Interrupted, UserError
from echo_torch.experiments.configuration import Configuration, configure_saved, kept_kernel
from echo_torch.files import make_directory
from echo_torch.lab.locks import locked
from echo_torch.lab.plan import Plan
from echo_torch.lab.processes import end_with_parent
from echo_torch.lab.run_directory import RunDirectory, cannot_use, damaged_error
from echo_torch.lab.sweep_runs import begin, check_may_begin
from echo_torch.lab.yaml_files import SOURCE_KEY, check_format

_POLL_SECONDS = 0.3


def run_all(
    runs: Mapping[str, Configuration], folder: Path, *, num_jobs: int | None = None, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Train every configuration that is not finished yet, in parallel processes.

    Args:
        runs: Configurations by name; a run's directory is `folder / name`.
        folder: Where the runs are kept, by one sweep at a time. A run that was interrupted there goes on.
        num_jobs: Processes; None: one for each core.
        progress: Whether one progress bar over all updates is drawn.

    Returns:
        What each run's result.json holds, by name, in the order of `runs`.

    Raises:
        UserError: If a user's own model cannot be trained; then nothing is made.
        UserError: If a finished run there is damaged, or belongs to another configuration or another source of its
            model, or a directory of an unfinished one holds something that no sweep made. Nothing is removed then.
        UserError: If another sweep works in the folder, or a process was killed.
        Interrupted: At Ctrl-C, SIGTERM and SIGHUP; the processes are ended and finished runs stay.
    """
    sources = _check_models(runs)
    with contextlib.ExitStack() as stack:
        try:
            make_directory(folder)
            is_locked = stack.enter_context(locked(folder))
        except OSError as error:
            raise cannot_use(folder, error) from None
        if not is_locked:
            raise UserError(f"Another sweep works in {str(folder)!r}; wait for it.", "Or choose another $run.")
        return _run_all(runs, folder, sources, num_jobs or os.cpu_count() or 1, progress)


def _run_all(
    runs: Mapping[str, Configuration],
    folder: Path,
    sources: Mapping[str, str | None],
    num_jobs: int,
    progress: bool,
) -> dict[str, dict[str, Any]]:
    found = {name: read_finished(RunDirectory(folder / name), c, sources[name]) for name, c in runs.items()}
    to_do = {name: c for name, c in runs.items() if found[name] is None}
    for name in to_do:
        check_may_begin(RunDirectory(folder / name))
    if to_do:
        _run(to_do, folder, num_jobs, progress)
    return {
        name: result or _must_read(RunDirectory(folder / name), runs[name], sources[name])
        for name, result in found.items()
    }


def _check_models(runs: Mapping[str, Configuration]) -> dict[str, str | None]:
    """The digest of each run's own model, looked at once whatever else differs; None for the networks here.

    Raises:
        UserError: If one cannot be trained.
    """
    looked_at: dict[tuple[object, ...], str | None] = {}
    sources = {}
    for name, c in runs.items():
        which = (c.model, c.model_options, c.vocabulary_size)
        if which not in looked_at:
            plan = Plan(c)
            plan.check_model()
            looked_at[which] = plan.model_digest
        sources[name] = looked_at[which]
    return sources


def read_finished(
    run: RunDirectory, configuration: Configuration, model_source: str | None = None
) -> dict[str, Any] | None:
    """The result of a finished run, None where it is not finished.

    Args:
        run: Its directory.
        configuration: What it must be of.
        model_source: The digest of its own model; None for the networks here.

    Raises:
        UserError: If the result cannot be read or belongs to another configuration or another source of its model.
    """
    try:
        result = run.read_result()
    except FileNotFoundError:
        return None
    try:
        saved = configure_saved(result["config"])
        same = saved == kept_kernel(configuration, saved)
        _check_metrics(run.read_metrics())
    except (UserError, ValueError, KeyError, TypeError):
        raise damaged_error(run) from None
    check_format(result.get("format"), f"The finished run {str(run.path)!r}", "move it away to do it again")
    if missing := set(_NEEDED) - set(result):
        raise damaged_error(run, f"it has no {min(missing)!r}")
    if not all(is_right(result[name]) for name, is_right in _NEEDED.items()) or not _fits_together(result):
        raise damaged_error(run)
    if result["targets"] == 0 and _asks(configuration):
        raise damaged_error(run)
    if not same:
        raise UserError(
            f"{str(run.path)!r} holds a finished run with other options, and no finished run is overwritten.",
            "Choose another $run.",
        )
    if result.get(SOURCE_KEY) != model_source:
        raise UserError(
            f"{str(run.path)!r} holds a finished run with another source of {configuration.model}, and no finished run "
            "is overwritten.",
            "Choose another $run.",
        )
    return result


def _check_metrics(metrics: Mapping[str, list[float]]) -> None:
    """Refuse rows that no table can be made of.

    Raises:
        KeyError: If a column is missing.
        ValueError: If there is no row, or a number that no run writes.
    """
    shares = [None if math.isnan(share) else share for share in metrics["accuracy"]]  # where nothing was asked
    if not shares or not all(map(_is_amount, [*metrics["symbols"], *metrics["targets"]])) or not _are_shares(shares):
        raise ValueError


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= cast("float", value) < math.inf  # a bool has a type of its own


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_share(value: object) -> bool:
    return value is None or (_is_amount(value) and cast("float", value) <= 1)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_count, values))


def _are_shares(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_share, values))


# What tables and figures take out of a result.json, and what it must be.
_NEEDED: dict[str, Callable[[object], bool]] = {
    "accuracy": _is_share,
    "accuracy_reset": _is_share,
    "accuracy_by_chunk": _are_shares,
    "targets": _is_count,
    "targets_by_chunk": _are_counts,
    "updates": _is_count,
    "chance": _is_share,
    "seconds": _is_amount,
    "parameters": _is_count,
}


def _fits_together(result: Mapping[str, Any]) -> bool:
    """Whether the chunks have all the targets, and there is an accuracy exactly where something was asked."""
    asked, shares = result["targets_by_chunk"], result["accuracy_by_chunk"]
    pooled = [(result[name], result["targets"]) for name in ("accuracy", "accuracy_reset")]
    if len(shares) != len(asked) or sum(asked) != result["targets"] or result["chance"] is None:
        return False
    return all((share is None) == (number == 0) for share, number in [*pooled, *zip(shares, asked, strict=True)])


def _asks(configuration: Configuration) -> bool:
    """Whether an evaluation asks anything."""
    return any(bool((chunk.targets >= 0).any()) for chunk in Plan(configuration).evaluation())


def _must_read(run: RunDirectory, configuration: Configuration, model_source: str | None) -> dict[str, Any]:
    result = read_finished(run, configuration, model_source)
    if result is None:
        raise UserError(f"The run {str(run.path)!r} was removed while others went on.")
    return result


def _run(to_do: Mapping[str, Configuration], folder: Path, num_jobs: int, progress: bool) -> None:
    total = sum(configuration.reading.num_updates for configuration in to_do.values())
    bar = tqdm(total=total, unit=" updates", disable=not progress, dynamic_ncols=True, smoothing=0.05)
    # Long runs first, so that no core waits for one at the end.
    names = sorted(to_do, key=lambda name: -to_do[name].reading.num_updates)
    pool = ProcessPoolExecutor(
        min(num_jobs, len(to_do)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(os.getpid(),),
    )
    try:
        futures: dict[Future[None], str] = {}
        for name in names:
            futures[pool.submit(_train_one, to_do[name], folder / name)] = name
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            if progress:
                bar.n = sum(RunDirectory(folder / name).last_update() for name in names)
                bar.set_description(f"{len(futures) - len(pending)} of {len(futures)} runs", refresh=False)
                bar.refresh()
    except KeyboardInterrupt as error:
        _end(pool)
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        kept = sum(RunDirectory(folder / name).result.exists() for name in names)
        what = f"{kept} of the {len(names)} runs that were to do are finished and kept in {str(folder)!r}"
        raise Interrupted(number, f"Interrupted; {what}; the same command goes on with the others.") from None
    except BrokenProcessPool:
        _end(pool)
        what = "One of the processes was killed, perhaps for want of memory"
        raise UserError(f"{what}; what is finished is kept, and the same command goes on.") from None
    except BaseException:
        _end(pool)
        raise
    finally:
        bar.close()
    pool.shutdown()


def _train_one(configuration: Configuration, path: Path) -> None:
    from echo_torch.lab.runner import train

    run, plan = RunDirectory(path), Plan(configuration)
    begin(run, plan)
    train(plan, run, audit="count", resume="auto")


def _begin_worker(parent: int) -> None:
    # Ctrl-C and the end of a terminal go to all its processes; the first one ends the others.
    for number in set(ENDINGS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    for process in processes:
        # Not terminate: that would end the update and save. Results are written whole, so nothing is lost.
        process.kill()
    # It waits for its own thread too: at the end of the program that one would write into a pipe that is closed.
    pool.shutdown(cancel_futures=True)
    for process in processes:
        process.join()
