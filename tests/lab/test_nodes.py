"""One training on several machines, here two launchers on one; and what becomes of it when a process is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import files

from echo_torch import RunDirectory

TRAIN_PY = str(Path(__file__).parents[2] / "train.py")
OPTIONS = ["--mode", "lag", "--vocabulary-size", "10", "--hidden-size", "4", "--accelerator", "cpu", "--no-progress"]
OPTIONS += ["--checkpoint-every", "50", "--updates", "300"]
SECONDS = 100


@pytest.fixture
def start(tmp_path):
    """Begins programs whose output goes to a file each, and ends what is left of them."""
    started = []

    def begin(words, variables=()):
        output = tmp_path / f"printed-{len(started)}"
        with output.open("w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **dict(variables)}
            words = [sys.executable, *words]
            process = subprocess.Popen(words, stdout=file, stderr=file, env=environment, start_new_session=True)
        process.output = output
        started.append(process)
        return process

    yield begin
    for process in started:
        for number in [*workers(process).values(), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What is left of the same training by two processes that nobody disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run([sys.executable, TRAIN_PY, *OPTIONS, "--devices", "2", "--run-dir", str(run)], check=True)
    return files(run)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def torchrun(port, node=0, num_nodes=1, num_processes=2):
    place = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    counts = ["--nnodes", str(num_nodes), "--node-rank", str(node), "--nproc-per-node", str(num_processes)]
    return ["-m", "torch.distributed.run", "--max-restarts", "2", *counts, *place, TRAIN_PY, *OPTIONS]


def two_nodes(run, *more):
    port = free_port()
    return [[*torchrun(port, node, 2, 1), "--run-dir", str(run), *more] for node in (0, 1)]


def workers(launcher):
    """Rank -> process number."""
    with contextlib.suppress(OSError):
        numbers = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        found = {}
        for number in map(int, numbers):
            with contextlib.suppress(OSError, StopIteration):
                words = Path(f"/proc/{number}/environ").read_text().split("\0")
                found[int(next(word[5:] for word in words if word.startswith("RANK=")))] = number
        return found
    return {}


def wait_until(is_so, *launchers):
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert all(launcher.poll() is None for launcher in launchers), [one.output.read_text() for one in launchers]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(*launchers):
    """Their exit codes, and what they printed."""
    codes = [launcher.wait(SECONDS) for launcher in launchers]
    return codes, [launcher.output.read_text() for launcher in launchers]


@pytest.mark.slow
def test_two_nodes_train_as_one_and_go_on(tmp_path, start, whole):
    run = RunDirectory(tmp_path / "run")
    codes, (first, second) = ended(*map(start, two_nodes(run.path)))
    assert codes == [0, 0], first + second
    assert files(run.path) == whole
    assert (first.count("files: "), second) == (1, "")
    run.checkpoint.unlink()  # back to the one before
    codes, (first, _) = ended(*map(start, two_nodes(run.path, "--resume", "auto")))
    assert codes == [0, 0], first
    assert "The run goes on after update 250 of 300." in first
    assert files(run.path) == whole


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_anew(tmp_path, start, whole):
    run = RunDirectory(tmp_path / "run")
    launcher = start([*torchrun(free_port()), "--run-dir", str(run.path), "--resume", "auto"])
    wait_until(run.checkpoint.exists, launcher)
    os.kill(workers(launcher)[0], signal.SIGKILL)
    (code,), (printed,) = ended(launcher)
    assert code == 0, printed
    assert "The run goes on after update" in printed
    assert files(run.path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_nodes_start_anew(tmp_path, start, whole, rank):
    """A machine's launcher does not hear what has become of the processes on another one."""
    run = RunDirectory(tmp_path / "run")
    launchers = [start(words) for words in two_nodes(run.path, "--resume", "auto")]
    wait_until(run.checkpoint.exists, *launchers)
    os.kill(workers(launchers[rank])[rank], signal.SIGKILL)
    codes, printed = ended(*launchers)
    assert codes == [0, 0], printed
    if rank == 1:
        assert printed[0].count("Another one of the 2 processes that train together has ended") == 1
    assert "Traceback" not in "".join(printed)
    assert files(run.path) == whole


@pytest.mark.slow
def test_launchers_may_have_started_anew_a_different_number_of_times(tmp_path, start, whole):
    """One process is killed before it meets the other, which goes on waiting and is not started anew."""
    run = RunDirectory(tmp_path / "run")
    launchers = [start(words) for words in two_nodes(run.path, "--resume", "auto")]
    wait_until(lambda: workers(launchers[1]), *launchers)
    os.kill(workers(launchers[1])[1], signal.SIGKILL)
    codes, printed = ended(*launchers)
    assert codes == [0, 0], printed
    assert files(run.path) == whole


def of_srun(rank, **more):
    """What srun sets for one of two tasks."""
    tasks = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    step = {"SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "123", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}
    return {**tasks, **step, **more}


@pytest.mark.slow
def test_tasks_of_srun_train_as_one(tmp_path, start, whole):
    words = [TRAIN_PY, *OPTIONS, "--run-dir", str(tmp_path / "run"), "--devices", "2"]
    port = str(free_port())
    codes, printed = ended(*[start(words, of_srun(rank, MASTER_PORT=port)) for rank in (0, 1)])
    assert codes == [0, 0], printed
    assert files(tmp_path / "run") == whole


@pytest.mark.slow
def test_the_shell_of_a_job_of_several_tasks_is_one_process(tmp_path, start, whole):
    """As salloc and sbatch begin it: what is started in it finds no others, and starts them itself."""
    shell = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "123"}
    words = [TRAIN_PY, *OPTIONS, "--run-dir", str(tmp_path / "run")]
    codes, printed = ended(start([*words, "--devices", "2"], shell))
    assert codes == [0], printed
    assert files(tmp_path / "run") == whole


@pytest.mark.slow
def test_processes_that_were_told_different_things_say_so(tmp_path, start):
    """They would wait for each other for ever."""
    port = str(free_port())
    words = [TRAIN_PY, *OPTIONS, "--run-dir", str(tmp_path / "run"), "--updates"]
    both = [start([*words, number], of_srun(rank, MASTER_PORT=port)) for rank, number in enumerate(("100", "200"))]
    codes, (first, second) = ended(*both)
    assert codes == [2, 2]
    assert first.splitlines()[-1] == (
        "--updates must be the same in all processes of one training, because they go on as one. Got 100 in the first "
        "process and 200 in another; start all of them with the same command line."
    )
    assert second == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_machine_without_the_checkpoint_says_so(tmp_path, start, whole):
    """Its directory is its own, not shared with the first one's."""
    run, port = tmp_path / "run", str(free_port())
    words = [TRAIN_PY, *OPTIONS, "--run-dir"]
    ended(*[start([*words, str(run)], of_srun(rank, MASTER_PORT=port)) for rank in (0, 1)])
    assert files(run) == whole
    words = [TRAIN_PY, *OPTIONS, "--resume", "auto", "--run-dir"]
    places = (str(run), str(tmp_path / "other"))
    both = [start([*words, place], of_srun(rank, MASTER_PORT=port)) for rank, place in enumerate(places)]
    codes, (first, second) = ended(*both)
    assert codes == [2, 2]
    assert first.splitlines()[-1] == (
        "All processes of one training must see the same checkpoint in --run-dir, because they go on as one. Got "
        "update 300 in the first process and none in another; put --run-dir on a file system that all machines share."
    )
    assert second == ""
    assert files(run) == whole
    assert not (tmp_path / "other").exists()
