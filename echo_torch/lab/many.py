"""Many runs at once: stacks of them over the cores, or over what workers there are elsewhere.

Finished runs are kept and begun ones go on, so whatever ends a sweep, the same command takes it up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from echo_torch.errors import ENDINGS, Interrupted, RuleError, UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.files import make_directory
from echo_torch.lab.locks import locked
from echo_torch.lab.machine import check_machine
from echo_torch.lab.plan import Plan
from echo_torch.lab.processes import end_with_parent
from echo_torch.lab.results import read_finished
from echo_torch.lab.run_directory import RunDirectory, cannot_use
from echo_torch.lab.stacks import Work, train_work, works_of
from echo_torch.lab.sweep_runs import check_may_begin

_POLL_SECONDS = 0.3


class Future(Protocol):
    """What becomes of a piece of work; that of `concurrent.futures` and its like."""

    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def result(self) -> Any:
        """What it returned, or what it raised."""
        ...


class Executor(Protocol):
    """Whatever has workers: an executor of `concurrent.futures`, of loky, dask or submitit."""

    def submit(self, function: Any, /, *arguments: Any) -> Future:
        """Have a worker call a function."""
        ...


def train_many(
    runs: Mapping[str, Configuration],
    folder: str | Path,
    *,
    num_jobs: int | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    progress: bool = False,
    failures: dict[str, str] | None = None,
    begin: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Train every configuration that is not finished yet, those of one shape side by side.

    A run has the same bits as alone, whatever is trained beside it, and leaves the same directory, without a curve. Of
    its `seconds` it has its share.

    Args:
        runs: Configurations by name; a run's directory is `folder / name`.
        folder: Where the runs are kept, by one sweep at a time. A run that was interrupted there goes on.
        num_jobs: Processes here, of which each trains a stack at a time, or how many workers the executor has; None:
            one for each core of this machine.
        executor: Trains the stacks instead, wherever its workers are: anything with `submit(function, argument)` that
            returns a future. They must see the folder under the same name. None: processes here.
        shard: "k/n": only the k-th of n parts, which are trained at the same time, by other machines for instance.
            Every part must be given the same runs.
        progress: Whether one progress bar over all updates is drawn.
        failures: Takes the name of each run that ended before its time, and why; None: such a run is an error, when
            all others are finished.
        begin: Is called when nothing stands in the way any more, and the folder is there and locked.

    Returns:
        What each run's result.json holds, by name, in the order of `runs`; of a shard what is finished by now.

    Raises:
        UserError: If a user's own model or data cannot be used, or the machine does not suffice; then nothing is made.
        UserError: If a finished run there is damaged, or belongs to another configuration or another source of its
            model, or a directory of an unfinished one holds something that no sweep made. Nothing is removed then.
        UserError: If another sweep works in the folder, or a process was killed.
        RuleError: If `shard` is no part.
        Interrupted: At Ctrl-C, SIGTERM and SIGHUP; the processes are ended and finished runs stay.
    """
    part, folder = checked_shard(shard), Path(folder).absolute()  # workers may stand elsewhere
    sources = _check_models(runs)
    _check_machine_and_data(runs.values())
    failed: dict[str, str] = {}
    with _locked(folder, part):
        found = {name: read_finished(RunDirectory(folder / name), c, sources[name]) for name, c in runs.items()}
        works = [
            work
            for work in works_of(runs, folder, num_jobs or os.cpu_count() or 1, part)
            if any(found[name] is None for name, _ in work.runs)
        ]
        for name, _ in (one for work in works for one in work.runs):
            if found[name] is None:
                check_may_begin(RunDirectory(folder / name))
        begin()
        if works:
            failed = _train(works, folder, num_jobs or os.cpu_count() or 1, executor, progress)
        for name, c in runs.items():
            found[name] = found[name] or read_finished(RunDirectory(folder / name), c, sources[name])
    _check_all(found, failed, folder, part, failures)
    return {name: result for name, result in found.items() if result is not None}


def _check_all(
    found: Mapping[str, object],
    failed: dict[str, str],
    folder: Path,
    part: tuple[int, int],
    failures: dict[str, str] | None,
) -> None:
    """Refuse to go on where a run is missing that should be there.

    Raises:
        UserError: If one is.
    """
    if failures is not None:
        failures |= failed
    elif failed:
        name, reason = next(iter(failed.items()))
        others = f" {len(failed) - 1} more have failed too." if len(failed) > 1 else ""
        raise UserError(f"The run {name!r} has failed: {reason}{others} All others are finished.")
    missing = [name for name, result in found.items() if result is None and name not in failed]
    if missing and part == (1, 1):
        raise UserError(f"The run {str(folder / missing[0])!r} was removed while others went on.")


def checked_shard(shard: str | None) -> tuple[int, int]:
    """The part that a shard such as '1/2' is, and of how many; None is the whole.

    Raises:
        RuleError: If it is none.
    """
    if shard is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(shard), re.ASCII)
    part, number = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= number:
        raise RuleError("shard", "$shard must be a part and how many there are, such as 1/2", repr(shard))
    return part, number


@contextlib.contextmanager
def _locked(folder: Path, part: tuple[int, int]) -> Iterator[None]:
    """Keep others out: all where the sweep is whole, those of the same part where it is one of several."""
    is_shard = part != (1, 1)
    with contextlib.ExitStack() as stack:
        try:
            make_directory(folder)
            is_locked = stack.enter_context(locked(folder, is_shared=is_shard))
            if is_locked and is_shard:
                own = folder / f".shard-{part[0]}-of-{part[1]}"
                make_directory(own)
                stack.callback(_remove, own)
                is_locked = stack.enter_context(locked(own))
        except OSError as error:
            raise cannot_use(folder, error) from None
        if not is_locked:
            way_out = "Or choose another $run, or train one part in each: $shard 1/2 and $shard 2/2."
            raise UserError(f"Another sweep works in {str(folder)!r}; wait for it.", way_out)
        yield


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):  # another waits for it
        directory.rmdir()


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


def _check_machine_and_data(configurations: Iterable[Configuration]) -> None:
    """Refuse what a run alone would refuse before it begins.

    Raises:
        UserError: If there is such a run.
    """
    for c in {dataclasses.replace(c, seed=0): None for c in configurations}:
        plan = Plan(c)
        plan.check_data()
        check_machine(plan)


def _train(
    works: Sequence[Work], folder: Path, num_jobs: int, executor: Executor | None, progress: bool
) -> dict[str, str]:
    """Have all works done; return which runs have failed, and why."""
    pool = None if executor is not None else _local_pool(min(num_jobs, len(works)))
    failed: dict[str, str] = {}
    pending: dict[Future, Work] = {}
    with _Bar(works, progress) as bar:
        try:
            submit = (executor or pool).submit  # type: ignore[union-attr]  # one of them is there
            pending = {submit(train_work, work): work for work in works}
            while pending:
                for future in [future for future in pending if future.done()]:
                    failed |= future.result()
                    bar.finish(pending.pop(future))
                bar.draw(pending.values())
                if pending:
                    time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt as error:
            _end(pool, pending)
            raise _interrupted(error, works, folder) from None
        except BrokenProcessPool:
            _end(pool, pending)
            what = "One of the processes was killed, perhaps for want of memory"
            raise UserError(f"{what}; what is finished is kept, and the same command goes on.") from None
        except BaseException:
            _end(pool, pending)
            raise
    if pool is not None:
        pool.shutdown()
    return failed


def _interrupted(error: KeyboardInterrupt, works: Sequence[Work], folder: Path) -> Interrupted:
    number = error.number if isinstance(error, Interrupted) else signal.SIGINT
    names = [name for work in works for name, _ in work.runs]
    kept = sum(RunDirectory(folder / name).result.exists() for name in names)
    what = f"{kept} of the {len(names)} runs that were to do are finished and kept in {str(folder)!r}"
    return Interrupted(number, f"Interrupted; {what}; the same command goes on with the others.")


class _Bar:
    """One bar over all updates of all works."""

    def __init__(self, works: Sequence[Work], progress: bool) -> None:
        self._num_runs = sum(len(work.runs) for work in works)
        self._finished_runs = self._finished_updates = 0
        total = sum(work.num_updates for work in works)
        self._bar = tqdm(total=total, unit=" updates", disable=not progress, dynamic_ncols=True, smoothing=0.05)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def finish(self, work: Work) -> None:
        """Count what is done."""
        self._finished_runs += len(work.runs)
        self._finished_updates += work.num_updates

    def draw(self, pending: Iterable[Work]) -> None:
        """Say how far all are."""
        if self._bar.disable:
            return
        self._bar.n = self._finished_updates + sum(work.last_update() for work in pending)
        self._bar.set_description(f"{self._finished_runs} of {self._num_runs} runs", refresh=False)
        self._bar.refresh()


def _local_pool(num_workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_workers, context, initializer=_begin_worker, initargs=(os.getpid(),))


def _begin_worker(parent: int) -> None:
    # Ctrl-C and the end of a terminal go to all its processes; the first one ends the others.
    for number in set(ENDINGS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a kill would leave behind


def _end(pool: ProcessPoolExecutor | None, pending: Mapping[Future, Work]) -> None:
    if pool is None:  # the workers are somebody else's
        for future in pending:
            getattr(future, "cancel", lambda: None)()
        return
    processes = list((pool._processes or {}).values())
    for process in processes:
        # Not terminate: that would end the update and save. Results are written whole, so nothing is lost.
        process.kill()
    # It waits for its own thread too: at the end of the program that one would write into a pipe that is closed.
    pool.shutdown(cancel_futures=True)
    for process in processes:
        process.join()
