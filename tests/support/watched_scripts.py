"""Scripts run by themselves and under `watch`: what they do must be the same."""

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = "echo_torch watch"  # with which the report begins


@dataclasses.dataclass
class Ended:
    """How a process has ended, and what it has said; its report apart."""

    code: int
    out: str
    err: str
    report: str


def run(words, folder, *, flags=(), options=None, stdin="", launcher=(), **environment):
    """Run Python on some words; with `options` under watch."""
    watch = [] if options is None else ["-m", "echo_torch", "watch", *map(str, options)]
    found = subprocess.run(
        [sys.executable, *flags, *launcher, *watch, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
    )
    err, _, report = found.stderr.partition(REPORT)
    return Ended(found.returncode, found.stdout, err, report)


def both(words, folder, *, options=(), **given):
    """Run it by itself and under watch, at the same time."""
    with ThreadPoolExecutor(2) as pool:
        alone = pool.submit(run, words, folder, **given)
        watched = pool.submit(run, words, folder, options=options, **given)
        return alone.result(), watched.result()


def assert_same(words, folder, *, code=0, options=(), has_report=True, **given):
    """Run it both ways; return how it has ended under watch."""
    alone, watched = both(words, folder, options=options, **given)
    assert alone.report == ""
    assert alone.code == code, alone.err
    assert (watched.code, watched.out, watched.err) == (alone.code, alone.out, alone.err)
    assert bool(watched.report) == has_report
    return watched
