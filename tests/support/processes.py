"""The command line in processes that can be killed. They are forked from one that has imported everything already."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from support.signals import listen

from echo_torch import waiting
from echo_torch.cli import main

SPAWN = multiprocessing.get_context("forkserver")
PRELOADED = ["echo_torch.lab.runner", "echo_torch.lab.figures", "echo_torch.inference.predictor", "support.processes"]
SPAWN.set_forkserver_preload(PRELOADED)
waiting.PATIENCE_SECONDS = 3600.0
TIMES = {"seconds", "updates_per_second"}


def start(arguments, folder):
    """Run a command in the background; what it prints goes to `out` and `err` in the folder."""
    process = SPAWN.Process(target=_run, args=(list(map(str, arguments)), str(folder)))
    process.start()
    return process


def _run(arguments, folder):
    listen()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.exit(main(arguments))


def finish(process, seconds=120):
    """Wait for a command, and return its exit code."""
    process.join(seconds)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def wait_until(is_so, process, seconds=60):
    """Wait until something is so; return whether the command still runs then."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if not process.is_alive():
            return False
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.005)
    return process.is_alive()


def files(run):
    """What a run left, but for the times it took and the checkpoints, which hold times too."""
    left = {path.name: path.read_bytes() for path in Path(run).iterdir() if path.is_file()}
    result = json.loads(left.pop("result.json"))
    return left, {name: value for name, value in result.items() if name not in TIMES}


def kill_and_resume(arguments, run, num_kills, moments):
    """Train with SIGKILLs at random moments, resumed with `--resume auto` each time, and to the end after the last.

    The first comes before the first checkpoint or shortly after it, the others shortly after another was written. Where
    the training was quicker than a kill, all is begun anew, with earlier ones.
    """
    command = ["train", *arguments, "--run-dir", run, "--resume", "auto", "--no-progress"]
    checkpoint, latest, kills = Path(run, "checkpoints", "last.ckpt"), 0.25, 0
    while kills < num_kills:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(command, Path(run).parent)

        def is_time(is_first=kills == 0, before=before):
            if is_first:
                return Path(run, "config.yaml").exists()
            return checkpoint.exists() and checkpoint.stat().st_mtime_ns > before

        if wait_until(is_time, process):
            time.sleep(moments.uniform(0, latest))
        is_killed = process.is_alive()
        process.kill()
        process.join()
        kills += 1
        if not is_killed:
            kills, latest = 0, latest / 2
            assert latest > 0.01, Path(run).parent.joinpath("err").read_text()
            shutil.rmtree(run)
    assert finish(start(command, Path(run).parent)) == 0, Path(run).parent.joinpath("err").read_text()


def children(process):
    """The numbers of the processes that a command has started."""
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _send(number):
    return lambda process: os.kill(process.pid, number)


def _stop_and(number):
    def end(process):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(process.pid, number)
        os.kill(process.pid, signal.SIGCONT)

    return end


def _kill_children(process):
    for number in children(process) or [process.pid]:  # it may have none yet
        os.kill(number, signal.SIGKILL)


# How a command can be ended, and the exit codes it may have then; one that had made its last update ends with 0.
ENDINGS = {
    "parent killed": (_send(signal.SIGKILL), {-9}),
    "children killed": (_kill_children, {2, -9}),
    "hung up": (_send(signal.SIGHUP), {129}),
    "interrupted": (_send(signal.SIGINT), {130}),
    "terminated": (_send(signal.SIGTERM), {143}),
    "stopped and killed": (_stop_and(signal.SIGKILL), {-9}),
    "stopped and hung up": (_stop_and(signal.SIGHUP), {129}),
}
