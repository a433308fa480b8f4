"""A sweep that is killed at any moment, and continued, ends as one that never was; finished runs are left alone."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from echo_torch.lab import read_sweep

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", "3"))  # 20 in the full count
GRID = ["--grid", "lag=0,1", "chunk=2,4", "learning_rate=0.001,0.01", "--seeds", "3"]
SIZES = [
    "--updates",
    "6000",
    "--vocabulary-size",
    "10",
    "--hidden-size",
    "20",
    "--lanes",
    "8",
    "--checkpoint-every",
    "50",
]
COMMAND = [sys.executable, "-m", "echo_torch", "sweep", "--mode", "aligned", *GRID, *SIZES, "--jobs", "2"]


def sweep(folder, which=0):
    """Begin one, whose errors go to a file of its own: what a killed one leaves running may still write."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*COMMAND, "--no-progress", "--run-dir", str(folder)]
    with open(errors_of(folder, which), "w") as said:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said)


def errors_of(folder, which):
    return folder.with_suffix(f".{which}.txt")


def workers_of(process):
    """The numbers of the processes that it has begun to train in."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "spawn_main" in line]


def kill(process, dice):
    """The sweep itself, or one of its workers."""
    workers = workers_of(process)
    if workers and dice.random() < 0.5:
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(workers), signal.SIGKILL)
        process.wait(30)
    else:
        process.kill()
        process.wait(30)
        time.sleep(1.5)  # its workers notice within a second that it is gone


def contents(run):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_killed_at_random(tmp_path):
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert sweep(whole).wait(300) == 0
    took = time.monotonic() - began
    seed, num_kills, number = time.time_ns(), 0, 0
    dice = random.Random(seed)
    while num_kills < KILLS:
        number += 1
        folder = tmp_path / f"killed{number}"
        num_kills += kill_and_go_on(folder, KILLS - num_kills, took, dice)
        check_same(whole, folder, f"seed {seed}, {num_kills} kills")


def kill_and_go_on(folder, most, took, dice):
    """Kill a sweep at most so often, until it ends; return how often."""
    finished, num_kills = {}, 0
    while True:
        process = sweep(folder, num_kills)
        try:
            code = process.wait(300 if num_kills == most else dice.uniform(0.1, 0.8) * took)
        except subprocess.TimeoutExpired:
            kill(process, dice)
            num_kills += 1
            for run in [path.parent for path in folder.glob("*/result.json")]:
                finished.setdefault(run, contents(run))
            continue
        assert (code, errors_of(folder, num_kills).read_text()) == (0, "")
        assert all(contents(run) == before for run, before in finished.items())
        return num_kills


def check_same(whole, killed, which):
    one, other = ({row["run"]: row for row in read_sweep(folder)} for folder in (whole, killed))
    assert list(one) == list(other), which
    for name in one:
        same = ("accuracy", "loss", "updates", "weights_sha256", "symbols_to_99")
        assert [one[name][column] for column in same] == [other[name][column] for column in same], which
        assert (whole / name / "metrics.csv").read_bytes() == (killed / name / "metrics.csv").read_bytes(), which
