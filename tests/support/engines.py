"""Sweeps on workers of others, of which some are killed on the way."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from echo_torch import configure
from echo_torch.lab import members
from echo_torch.lab.many import train_many
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.stacks import train_work

SMALL = {"accelerator": "cpu", "hidden_size": 9, "vocabulary_size": 12}
SHORT = {f"short{seed}": configure("lag", seed=seed, sequences=50, **SMALL) for seed in range(1, 4)}
LONG = {
    f"long{seed}": configure("lag", seed=seed, lag=seed % 3, sequences=400, checkpoint_every=20, **SMALL)
    for seed in range(1, 10)
}
RUNS = SHORT | LONG  # two stacks, where `num_jobs` is 1


def train_and_save_often(work):
    """`train_work`, where a kill needs not wait long for a checkpoint."""
    members.SECONDS_BETWEEN_SAVES = 0.3
    return train_work(work)


class SavesOften:
    """An engine whose workers do that."""

    def __init__(self, engine):
        self._engine = engine

    def submit(self, function, work):
        """As an executor of `concurrent.futures`."""
        return self._engine.submit({train_work: train_and_save_often}[function], work)


def sweep_under_kills(engine, folder, kill):
    """Train `RUNS`, and twice kill who trains the long ones: between two saves, and between two results.

    Args:
        engine: It does what a lost worker has left.
        folder: Of the sweep.
        kill: Kills a process, by its number, and what is to fall with it.

    Returns:
        The results, by name.
    """
    last = RunDirectory(folder / list(LONG)[-1])
    with ThreadPoolExecutor(1) as thread:
        sweep = thread.submit(train_many, RUNS, folder, executor=SavesOften(engine), num_jobs=1)
        wait_until(last.checkpoint.exists, sweep)
        assert not finished(folder, LONG), "it came too late"
        begun = {path: path.stat().st_mtime_ns for path in folder.glob("*/sweep.yaml")}
        kept = kept_while_killed(folder, last, kill)
        wait_until(lambda: finished(folder, LONG), sweep)
        kept |= kept_while_killed(folder, last, kill)
        assert not last.result.exists(), "it came too late"
        results = sweep.result(timeout=90)
    for path, stamp in (kept | begun).items():  # a run that begins anew writes its mark again
        assert path.stat().st_mtime_ns == stamp, path
    return results


def kept_while_killed(folder, run, kill):
    """Kill who trains a run; return the results that it leaves there, and when they were written."""
    (process,) = who_trains(run)
    kill(process)
    while process in who_trains(run):  # the kernel takes its files away a little later
        time.sleep(0.01)
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}


def finished(folder, names):
    """Which of the runs are."""
    return {name for name in names if RunDirectory(folder / name).result.exists()}


def who_trains(run):
    """The processes that hold a run's directory open, as its lock needs."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(path) == str(run.path):
                found.add(int(path.parts[2]))
        except OSError:  # it has been closed, or is another user's
            continue
    return found


def wait_until(is_so, sweep, seconds=90):
    """Wait until something is so, while a sweep goes on."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert not sweep.done(), sweep.result()
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.01)
