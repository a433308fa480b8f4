"""Processes that a launcher has started: they meet, or end in a sentence and leave nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only
from support import processes, runs

from echo_torch import RunDirectory, train
from echo_torch.cli import main
from echo_torch.errors import RuleError, UserError
from echo_torch.lab.meeting import MeetingError, _Round, check_timeout
from echo_torch.lab.plan import Plan
from echo_torch.lab.runner import build_trainer, check_machine
from echo_torch.ranks import Launch

OPTIONS = ["--updates", "8", "--vocabulary-size", "10", "--hidden-size", "4", "--accelerator", "cpu", "--no-progress"]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def launched(rank, port, num_ranks=2):
    common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), **common}


@pytest.fixture
def launch(monkeypatch):
    """Let this process be one that a launcher has started."""

    def launch(rank, port=None):
        for name, value in launched(rank, port or free_port()).items():
            monkeypatch.setenv(name, value)

    return launch


@pytest.fixture
def stranger():
    """The port of somebody who takes calls and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set together"),
        ({"SLURM_PROCID": "1", "SLURM_JOB_ID": "5"}, "SLURM_PROCID must be 0 where neither srun nor torchrun"),
        ({"WORLD_SIZE": "abc"}, "Got WORLD_SIZE=abc without RANK"),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare", "map", "lags"])
def test_a_launcher_in_part_leaves_nothing(tmp_path, monkeypatch, capsys, command, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    with pytest.raises(RuleError, match=message):
        train(runs.short(), RunDirectory(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("tasks", ["1", "4"])
def test_one_process_in_a_job_writes_all(tmp_path, monkeypatch, tasks):
    """Lightning would take SLURM's and Lightning's own variables for several processes, and write no row."""
    for name, value in {"SLURM_NTASKS": tasks, "SLURM_PROCID": "0", "SLURM_JOB_ID": "5", "NODE_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as it was when Lightning was imported
    run = RunDirectory(tmp_path / "run")
    train(runs.short(updates=8), run, audit="count")
    assert run.read_metrics()["update"] == [4, 8]


def test_lightning_is_told_who_it_is(monkeypatch, launch):
    """It would ask SLURM, whose tasks these processes are not; and its own way takes WORLD_SIZE away at the end."""
    launch(1)
    for name, value in {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    trainer = build_trainer(runs.short(devices=2))
    assert (trainer.global_rank, trainer.local_rank, trainer.world_size, rank_zero_only.rank) == (1, 1, 2, 1)
    trainer.strategy.cluster_environment.teardown()
    assert os.environ["WORLD_SIZE"] == "2"


@pytest.mark.parametrize(("here", "nodes"), [("1", 2), ("2", 1)])
def test_lightning_takes_the_devices_of_its_machine(monkeypatch, launch, here, nodes):
    """Of two machines with a device each, none has two."""
    launch(1)
    monkeypatch.setenv("LOCAL_RANK", str(int(here) - 1))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    trainer = build_trainer(runs.short(devices=2))
    assert (trainer.num_devices, trainer.num_nodes) == (int(here), nodes)
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank) == (2, 1, int(here) - 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    plan = Plan(runs.short(devices=2, accelerator="cuda"))
    if nodes == 2:
        check_machine(plan)
    else:
        with pytest.raises(RuleError, match=r"^The launcher must start at most 1 processes here, .* Got 2\."):
            check_machine(plan)


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (0, r"^After 0.3 seconds only 1 of 2 processes are at 127.0.0.1:\d+; nothing was begun\. Start the others in "),
        (1, r"^After 0.3 seconds nobody answers at 127.0.0.1:\d+, where the first of 2 is awaited; nothing was begun"),
    ],
)
def test_who_waits_in_vain(tmp_path, launch, capsys, rank, message):
    launch(rank)
    with pytest.raises(MeetingError, match=message):
        train(runs.short(devices=2), RunDirectory(tmp_path / "run"), rendezvous_timeout=0.3)
    assert main(["train", *OPTIONS, "--run-dir", str(tmp_path / "run"), "--rendezvous-timeout", "0.1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("After 0.1 seconds")
    assert "or wait longer with --rendezvous-timeout, or unset RANK" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_port_that_is_somebody_elses(tmp_path, launch, stranger, rank):
    """Torch would wait for ever for the answer of one who is silent."""
    launch(rank, stranger)
    message = ["the port is in use. Set another MASTER_PORT", r"^After 0.3 seconds nobody answers"][rank]
    begin = time.monotonic()
    with pytest.raises(MeetingError, match=message):
        train(runs.short(devices=2), RunDirectory(tmp_path / "run"), rendezvous_timeout=0.3)
    assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_waiting(tmp_path, monkeypatch, launch, capsys, number, code):
    launch(1)
    monkeypatch.setattr("echo_torch.lab.meeting._SILENCE_SECONDS", 0.1)
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), number))
    begin = time.monotonic()
    try:
        timer.start()
        assert main(["train", *OPTIONS, "--run-dir", str(tmp_path / "run")]) == code
    finally:
        timer.join()
        for one, handler in before.items():
            signal.signal(one, handler)
    assert time.monotonic() - begin < 20
    assert capsys.readouterr().err.startswith("Interrupted while 2 processes were to meet at 127.0.0.1:")
    assert list(tmp_path.iterdir()) == []


def rounds_of(store, *ranks):
    return [_Round(store, Launch(rank, rank, 2, "127.0.0.1", 29500, 2)) for rank in ranks]


def test_names_of_a_round_before_are_not_taken_for_the_living():
    """Torchrun keeps its store when it starts processes anew."""
    store = torch.distributed.HashStore()
    first, second = rounds_of(store, 0, 1)
    assert not second.is_complete()
    assert second.who_is_missing() == "the first of 2 processes has not come to 127.0.0.1:29500"
    assert not first.is_complete()
    assert first.who_is_missing() == "only 1 of 2 processes are at 127.0.0.1:29500"
    assert not second.is_complete()
    assert first.is_complete()
    assert second.is_complete()
    again, anew = rounds_of(store, 1, 0)
    assert not again.is_complete()
    assert again.who_is_missing() == "the first of 2 processes has not come to 127.0.0.1:29500"
    assert not anew.is_complete()
    assert not again.is_complete()
    assert anew.is_complete()
    assert again.is_complete()
    again.store.set("mine", "1")
    assert anew.store.check(["mine"])
    assert not first.store.check(["mine"])


def test_one_that_was_killed_while_it_waited_is_replaced():
    """Another machine's launcher has not started anew the process that goes on waiting."""
    store = torch.distributed.HashStore()
    (first,) = rounds_of(store, 0)
    assert not first.is_complete()
    killed, anew = rounds_of(store, 1, 1)
    assert not killed.is_complete()
    assert not anew.is_complete()
    assert first.is_complete()
    assert anew.is_complete()
    assert not killed.is_complete()


def test_the_waiting_is_said(tmp_path, monkeypatch, launch):
    launch(0)
    monkeypatch.setattr("echo_torch.lab.meeting._SILENCE_SECONDS", 0.1)
    said = []
    with pytest.raises(MeetingError):
        train(runs.short(devices=2), RunDirectory(tmp_path / "run"), rendezvous_timeout=0.3, say=said.append)
    (line,) = said
    assert line.startswith("Only 1 of 2 processes are at 127.0.0.1:")
    assert line.endswith("they are awaited for 0.3 seconds.")


@pytest.mark.parametrize("given", ["nan", "inf", "0", "-1", "abc", "", "1e7", True, None, 10**400])
def test_a_timeout_is_a_number_of_seconds(given):
    with pytest.raises(RuleError, match="`rendezvous_timeout` must be a number of seconds above 0, at most 1,000,000"):
        check_timeout(given)


def test_a_bad_timeout_leaves_nothing(tmp_path, capsys):
    assert main(["train", "--rendezvous-timeout", "inf", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("--rendezvous-timeout must be a number of seconds above 0")
    with pytest.raises(UserError, match="rendezvous_timeout"):
        train(runs.short(), RunDirectory(tmp_path / "run"), rendezvous_timeout=0)
    assert list(tmp_path.iterdir()) == []


def start_launched(rank, port, folder, arguments):
    """One of two that somebody starts by hand; what it prints goes to a folder of its own."""
    own = Path(folder, f"of-{rank}")
    own.mkdir()
    process = processes.SPAWN.Process(target=run_launched, args=(launched(rank, port), list(arguments), str(own)))
    process.start()
    return process


def run_launched(variables, arguments, folder):
    """What such a process does."""
    os.environ.update(variables)
    processes._run(arguments, folder)


def printed(folder, rank):
    return [Path(folder, f"of-{rank}", name).read_text() for name in ("out", "err")]


@pytest.mark.slow
def test_two_started_by_hand_meet(tmp_path):
    """The second comes later; the first one speaks and writes, and no variable is lost on the way."""
    port, run = free_port(), RunDirectory(tmp_path / "run")
    command = ["train", *OPTIONS, "--log-every", "4", "--run-dir", str(run.path)]
    first = start_launched(0, port, tmp_path, command)
    time.sleep(3)
    second = start_launched(1, port, tmp_path, command)
    assert (processes.finish(first), processes.finish(second)) == (0, 0), printed(tmp_path, 0) + printed(tmp_path, 1)
    assert run.read_metrics()["update"] == [4, 8]
    assert printed(tmp_path, 0)[0].count("updates in") == 1
    assert printed(tmp_path, 1) == ["", ""]


@pytest.mark.slow
def test_what_the_first_finds_wrong_ends_the_others(tmp_path):
    """The directory is free when both look, and not any more when the first one begins."""
    port, run = free_port(), tmp_path / "run"
    command = ["train", *OPTIONS, "--run-dir", str(run)]
    first = start_launched(0, port, tmp_path, command)
    out = tmp_path / "of-0" / "out"
    assert processes.wait_until(lambda: out.exists() and "Only 1 of 2" in out.read_text(), first)
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    second = start_launched(1, port, tmp_path, [*command[:-1], str(tmp_path / "other")])
    assert (processes.finish(first), processes.finish(second)) == (2, 2)
    assert printed(tmp_path, 0)[1].count("\n") == 1
    assert printed(tmp_path, 1) == ["", ""]
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_who_has_lost_another_says_what_is_kept(tmp_path):
    """Without a launcher that would end it."""
    port, run = free_port(), RunDirectory(tmp_path / "run")
    command = ["train", *OPTIONS, "--updates", "100000", "--checkpoint-every", "20", "--run-dir", str(run.path)]
    first, second = (start_launched(rank, port, tmp_path, command) for rank in (0, 1))
    assert processes.wait_until(run.checkpoint.exists, first)
    second.kill()
    assert processes.finish(first, 60) == 2
    (error,) = printed(tmp_path, 0)[1].splitlines()
    assert error.startswith("Another one of the 2 processes that train together has ended, or is out of reach. Update ")
    assert f"is saved in {str(run.checkpoint)!r}" in error


def has_caller(port):
    """Whether somebody has connected to a port of this machine: the remote end of a connection that is established."""
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    words = [line.split() for lines in tables for line in lines]
    return any(remote.endswith(f":{port:04X}") and state == "01" for _, _, remote, state, *_ in words)


@pytest.mark.slow
def test_a_program_that_waits_for_a_silent_stranger_ends_at_sigterm(tmp_path, stranger):
    """Its process ends for good, although torch still waits in it."""
    train_py = str(Path(__file__).parents[2] / "train.py")
    process = subprocess.Popen(
        [sys.executable, train_py, *OPTIONS, "--run-dir", str(tmp_path / "run")],
        env={**os.environ, **launched(1, stranger)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not has_caller(stranger):  # it imports for a while
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2)  # now it waits for an answer
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=15)
    assert process.returncode == 143
    assert error.startswith("Interrupted while 2 processes were to meet")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
