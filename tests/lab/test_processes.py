"""Several processes train as one: the same numbers, resumed exactly, ended together."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support import runs
from support.processes import files

from echo_torch import EchoLSTM, RunDirectory, train
from echo_torch.errors import Interrupted, UserError
from echo_torch.lab.plan import Plan
from echo_torch.lab.processes import KilledError, run_ranks
from echo_torch.ranks import gather, is_first_rank, launched_ranks, own_rank, sum_over_ranks
from echo_torch.training.checkpoints import CHECKPOINT_KEY, PREVIOUS, read_checkpoint
from echo_torch.training.evaluation import Evaluation, evaluate

ROOT = Path(__file__).parents[2]


short = partial(runs.short, checkpoint_every=10)


def test_one_process_is_all_ranks():
    assert (own_rank(), gather("x"), launched_ranks(), is_first_rank()) == (0, ["x"], None, True)
    assert sum_over_ranks(torch.tensor([2.0])).tolist() == [2.0]


@pytest.mark.parametrize("mode", ["lag", "aligned", "masked", "whole"])
@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_the_shares_of_an_evaluation_add_up(mode, num_ranks):
    """Each target is counted once, lanes that do not divide among them."""
    torch.manual_seed(1)
    model = EchoLSTM(100, 8)
    whole = evaluate(model, Plan(short(mode)).evaluation(20))
    parts = [evaluate(model, Plan(short(mode)).evaluation(20, rank=r, num_ranks=num_ranks)) for r in range(num_ranks)]
    assert sum(part.asked for part in parts) == whole.asked
    assert sum(part.correct for part in parts) == whole.correct
    total = Evaluation(whole.correct, whole.asked, sum(part.loss_sum for part in parts))
    assert math.isclose(total.loss, whole.loss, rel_tol=1e-6)


def fail(what):
    """What a rank does in the test below."""
    if what == "user" and own_name() == 1:
        raise UserError("No.")
    if what == "bug" and own_name() == 0:
        raise ZeroDivisionError("a bug")
    if what == "both":  # one knows why, the other has lost it
        raise UserError("No.") if own_name() == 0 else ConnectionError("lost")
    if what == "dies" and own_name() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what in ("user", "bug", "dies", "waits"):
        time.sleep(60)


def own_name():
    return int(os.environ["RANK"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("user", UserError, r"^No\.$"),
        ("both", UserError, r"^No\.$"),
        ("bug", RuntimeError, "ZeroDivisionError: a bug"),
        ("dies", KilledError, r"^Process 2 of 2 was killed by signal 9, perhaps for want of memory\.$"),
    ],
)
def test_when_one_fails_all_end(monkeypatch, what, error, message):
    monkeypatch.setattr("echo_torch.lab.processes._GRACE_SECONDS", 0.1)
    begin = time.monotonic()
    with pytest.raises(error, match=message):
        run_ranks(fail, (what,), 2)
    assert time.monotonic() - begin < 45, "it waited for the others"  # they would take 60 seconds


def meet_and_go(num_ranks):
    """As a training of one's own that does not leave its group."""
    torch.distributed.init_process_group("gloo")
    gathered = [torch.empty(1) for _ in range(num_ranks)]
    torch.distributed.all_gather(gathered, torch.ones(1), async_op=True)


@pytest.mark.slow
def test_what_does_not_leave_its_group_ends_well(capfd):
    """Without their parting, a process is aborted in two calls of three."""
    for _ in range(3):
        run_ranks(meet_and_go, (4,), 4)
    assert "terminate" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 4])
def test_an_interrupt_is_handed_on(seconds, capfd):
    """While the others begin to import, and while they work."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    timer.start()
    try:
        with pytest.raises(Interrupted) as error:
            run_ranks(fail, ("waits",), 2)
        assert error.value.number == signal.SIGINT
        assert time.monotonic() - begin < 30
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert "Traceback" not in capfd.readouterr().err


MANY = [{"mode": "lag"}, {"mode": "aligned", "lanes": 7}, {"mode": "stateful", "lag": 6}, {"mode": "whole"}]
FEW = MANY[:2]


@pytest.mark.slow
@pytest.mark.parametrize("options", FEW if os.environ.get("ALL_CLAIMS") != "1" else MANY)
def test_two_processes_train_as_one_and_go_on_exactly(tmp_path, options):
    """Lanes shared by two, an unused row among them: the same numbers within rounding, and exact when resumed."""
    mode = options.pop("mode")
    one, two, again = (RunDirectory(tmp_path / name) for name in ("one", "two", "again"))
    configuration = short(mode, devices=2, validate_every=12, **options)
    results = [
        train(short(mode, validate_every=12, **options), one, audit="count"),
        train(configuration, two, audit="count"),
    ]
    for read in (RunDirectory.read_metrics, RunDirectory.read_validation):
        for name, values in read(one).items():
            assert read(two)[name] == pytest.approx(values, abs=1e-5), name
    assert results[0]["gaps"] == results[1]["gaps"]
    assert results[0]["targets"] == results[1]["targets"]
    assert results[0]["accuracy"] == pytest.approx(results[1]["accuracy"], abs=1e-3)
    ranks = read_checkpoint(two.checkpoint)[CHECKPOINT_KEY]["ranks"]
    carried = torch.cat([rank["carry"][0] for rank in ranks], dim=1)
    alone = read_checkpoint(one.checkpoint)[CHECKPOINT_KEY]["ranks"][0]["carry"][0]
    torch.testing.assert_close(carried[:, : alone.shape[1]], alone, atol=1e-5, rtol=1e-4)
    # From the middle: the latest and the result are taken away.
    again.create()
    again.checkpoint.write_bytes(two.checkpoint.with_name(PREVIOUS).read_bytes())
    for path in (two.metrics, two.validation):
        (again.path / path.name).write_bytes(path.read_bytes())
    train(configuration, again, audit="count", resume="auto")
    assert files(again.path) == files(two.path)


@pytest.mark.slow
def test_the_loss_of_one_rank_stops_all(tmp_path):
    """An absurd learning rate: the weights are no numbers after a few updates, whichever rank sees it first."""
    program = (
        "import sys\n"
        "from echo_torch import RunDirectory, configure, train\n"
        "from echo_torch.lab import runner\n"
        "from echo_torch.training.module import EchoModule\n"
        "runner.build_module = lambda c, model: EchoModule(model, learning_rate=1e38)\n"
        "if __name__ == '__main__':\n"
        "    train(configure('lag', updates=50, devices=2, accelerator='cpu'), RunDirectory(sys.argv[1]))\n"
    )
    (tmp_path / "program.py").write_text(program)
    found = subprocess.run(
        [sys.executable, tmp_path / "program.py", tmp_path / "run"], capture_output=True, text=True, timeout=100
    )
    assert found.returncode != 0
    assert "LostError: The loss is not finite at update " in found.stderr


@pytest.mark.slow
def test_a_killed_process_of_two(tmp_path):
    """A sentence, the other one is ended, and the run can go on."""
    run = RunDirectory(tmp_path / "run")
    command = [sys.executable, str(ROOT / "train.py"), "--updates", "100000", "--devices", "2", "--checkpoint-every"]
    command += ["20", "--no-progress", "--quiet", "--run-dir", str(run.path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not run.checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid,args", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout
    ranks = [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "Process 2 of 2 was killed by signal 9" in error
    assert "--resume auto" in error


@pytest.mark.slow
def test_torchrun(tmp_path):
    """Started from outside it is the same training, and it goes on the same way."""
    command = ["--mode", "lag", "--updates", "300", "--checkpoint-every", "50", "--no-progress", "--run-dir"]
    train_py = str(ROOT / "train.py")
    alone = [sys.executable, train_py, *command, str(tmp_path / "alone"), "--devices", "2"]
    subprocess.run(alone, check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", train_py, *command]
    found = subprocess.run([*torchrun, str(tmp_path / "run")], capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("updates in") == 1  # one speaks for all
    assert files(tmp_path / "run") == files(tmp_path / "alone")
    run = RunDirectory(tmp_path / "run")
    run.checkpoint.unlink()  # back to the one before
    found = subprocess.run([*torchrun, str(run.path), "--resume", "auto"], capture_output=True, text=True, timeout=100)
    assert "The run goes on after update 250 of 300." in found.stdout
    assert files(run.path) == files(tmp_path / "alone")
    found = subprocess.run([*torchrun, str(tmp_path / "x"), "--devices", "3"], capture_output=True, text=True)
    assert found.returncode != 0
    assert found.stderr.count("--devices must be 2") == 1
    assert json.loads(run.result.read_text())["config"]["devices"] == 2


def test_interrupted_is_a_keyboard_interrupt():
    assert issubclass(Interrupted, KeyboardInterrupt)
