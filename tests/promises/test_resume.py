"""A run that was killed, interrupted or stopped ends bit for bit as one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support import runs
from support.processes import TIMES, files, finish, kill_and_resume, start, wait_until
from support.runs import StopError, at_update, copied, everything, stop_at
from support.signals import listen

from echo_torch import RunDirectory, train
from echo_torch.cli import main
from echo_torch.errors import Interrupted, UserError
from echo_torch.experiments.configuration import EXPERIMENTS, replace
from echo_torch.training.checkpoints import (
    CHECKPOINT_KEY,
    PREVIOUS,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from echo_torch.training.module import EchoModule

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", "3"))


short = partial(runs.short, vocabulary_size=10, validate_every=12)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A finished run of 20 updates, for copies."""
    run = RunDirectory(tmp_path_factory.mktemp("trained") / "run")
    train(short(updates=20), run)
    return run


@pytest.fixture
def trained(trained_once, tmp_path):
    """A finished run of 20 updates, to do with as a test likes."""
    return copied(trained_once, tmp_path / "run")


VARIANTS = [
    {"mode": "stateful"},
    {"mode": "sequence"},
    {"mode": "lag", "model": "rnn", "batch_size": 7, "init": "torch", "clip_norm": 0.1},
]
SLOW_VARIANTS = [
    *[{"mode": mode} for mode in EXPERIMENTS if {"mode": mode} not in VARIANTS],
    {"mode": "aligned", "model": "mlp", "missing": 0.2},
    {"mode": "aligned", "model": "gru", "layers": 2, "reset_every": 7, "stagger": True},
    {"mode": "aligned", "vocabulary_size": 2000, "workers": 2},
    {"mode": "stateful", "cut": "sequence", "init": "keras"},
]


@pytest.mark.parametrize(
    "options",
    [*VARIANTS, *[pytest.param(options, marks=pytest.mark.slow) for options in SLOW_VARIANTS]],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_stopped_at_several_places(tmp_path, monkeypatch, options):
    configuration = short(**options)
    whole = RunDirectory(tmp_path / "whole")
    result = train(configuration, whole, audit="count")
    run = RunDirectory(tmp_path / "run")
    for cursor in (2, 8, 12, 13):  # before the first checkpoint (6), between two, before and after a validation (12)
        with monkeypatch.context() as patch:
            stop_at(patch, cursor)
            if cursor < result["updates"]:
                with pytest.raises(StopError):
                    train(configuration, run, audit="count", resume="auto")
    torch.manual_seed(random.getrandbits(32))  # the global random state must not matter
    again = train(configuration, run, audit="count", resume="auto")
    assert {**again, **dict.fromkeys(TIMES)} == {**result, **dict.fromkeys(TIMES)}
    assert files(run.path) == files(whole.path)


@pytest.mark.parametrize("kernel", ["direct", "autograd"])
def test_everything_is_in_the_checkpoint(tmp_path, monkeypatch, kernel):
    """Carried state, optimiser, counters and random state: each is restored to the bit."""
    configuration, run = short(updates=9, checkpoint_every=5, kernel=kernel), RunDirectory(tmp_path / "run")
    seen = []

    def remember(module):
        seen.append(
            {
                "carry": [field.clone() for field in module.carry],
                "pooled": module._pooled.clone(),
                "random": (random.getstate(), torch.get_rng_state()),
                "cursor": module.cursor,
                "moments": [m.clone() for s in module.trainer.optimizers[0].state.values() for m in s.values()],
            }
        )

    def stopping(module):
        remember(module)
        if len(seen) == 1:
            raise StopError

    def draw(module):  # as dropout would
        torch.rand(3), random.random()

    at_update(monkeypatch, 5, before=stopping)
    at_update(monkeypatch, 3, after=draw)
    with pytest.raises(StopError):
        train(configuration, run)
    torch.manual_seed(0)
    random.seed(0)
    train(configuration, run, resume="auto")
    first, second = seen
    assert first["cursor"] == second["cursor"] == 5
    assert first["random"][0] == second["random"][0]
    assert torch.equal(first["random"][1], second["random"][1])
    for name in ("carry", "moments"):
        assert all(torch.equal(one, two) for one, two in zip(first[name], second[name], strict=True))
    assert torch.equal(first["pooled"], second["pooled"])
    assert float(first["pooled"][2]) == 5  # one update since the row of update 4


@pytest.mark.slow
def test_stopped_in_a_validation(tmp_path, monkeypatch):
    """Where a checkpoint and a validation are due at the same update, the row of the validation is not lost."""
    configuration = short()
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    train(configuration, whole)

    def stopping(module, chunk, batch_idx):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(EchoModule, "validation_step", stopping)
        with pytest.raises(StopError):
            train(configuration, run)
    assert read_checkpoint(run.checkpoint)["global_step"] == 6
    train(configuration, run, resume="auto")
    assert files(run.path) == files(whole.path)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["direct", "autograd"])
@pytest.mark.parametrize("mode", ["stateful", "lag", "aligned", "masked", "sequence"])
def test_killed_often_at_random_moments(tmp_path, mode, kernel):
    check_kills(tmp_path, mode, KILLS, time.time_ns(), str(200 * KILLS), kernel)


def check_kills(folder, mode, num_kills, seed, updates, kernel):
    arguments = [
        "--mode",
        mode,
        "--kernel",
        kernel,
        "--updates",
        updates,
        "--checkpoint-every",
        "30",
        "--log-every",
        "7",
    ]
    arguments += ["--validate-every", "90"]
    assert finish(start(["train", *arguments, "--run-dir", folder / "whole", "--no-progress"], folder)) == 0
    kill_and_resume(arguments, folder / "killed", num_kills, random.Random(seed))
    assert files(folder / "killed") == files(folder / "whole"), f"seed {seed}"
    assert not [path for path in (folder / "killed").rglob("*") if "writing" in path.name]


@pytest.mark.slow
def test_it_says_where_it_begins(tmp_path, capsys):
    arguments = ["train", "--mode", "lag", "--updates", "20", "--checkpoint-every", "8", "--run-dir", tmp_path / "run"]
    arguments = [str(word) for word in (*arguments, "--resume", "auto", "--no-progress")]
    assert main(arguments) == 0
    assert "Nothing was saved in" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "The training is complete at update 20: it is evaluated again." in capsys.readouterr().out
    arguments[arguments.index("20")] = "30"
    assert main(arguments) == 0
    assert "The run goes on after update 20 of 30." in capsys.readouterr().out
    previous = tmp_path / "run" / "checkpoints" / PREVIOUS
    assert main([*arguments[:-2], str(previous)]) == 0
    assert "The run goes on after update 24 of 30." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, pytest.param({"mode": "aligned"}, marks=pytest.mark.slow)])
def test_a_longer_training_goes_on_as_if_it_had_been_meant(tmp_path, options):
    """The row of the rest, which a longer training does not have, is taken back."""
    configuration = short(updates=18, **options)
    run, whole = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "whole")
    train(configuration, run, audit="count")
    assert run.read_metrics()["update"][-1] == 18
    longer = replace(configuration, updates=33)
    train(longer, run, audit="count", resume="auto")
    train(longer, whole, audit="count")
    assert files(run.path) == files(whole.path)


@pytest.mark.slow
def test_from_a_checkpoint_elsewhere(tmp_path, monkeypatch):
    """Copied away in the middle and given by its path: what came later in the run is given up, however it goes on."""
    configuration = short()
    run, copy = RunDirectory(tmp_path / "run"), tmp_path / "copy.ckpt"
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        with pytest.raises(StopError):
            train(configuration, run)
    copy.write_bytes(run.checkpoint.read_bytes())
    train(configuration, run, resume="auto")
    expected = files(run.path)
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(StopError):
            train(configuration, run, resume=copy)
    assert newest_checkpoint(run.checkpoint).path == run.checkpoint
    assert run.checkpoint.read_bytes() == copy.read_bytes()
    assert not run.checkpoint.with_name(PREVIOUS).exists()
    train(configuration, run, resume="auto")
    assert files(run.path) == expected


@pytest.mark.slow
def test_a_complete_run_is_evaluated_again(tmp_path):
    """Killed between its last checkpoint and its result, its last row that of a rest or not."""
    for updates in (24, 18):
        run = RunDirectory(tmp_path / str(updates))
        train(short(updates=updates), run)
        expected = files(run.path)
        run.result.unlink()
        (run.path / "checkpoints" / ".last.ckpt.writing-abc").touch()  # what a kill leaves
        (run.path / ".result.json.writing-abc").touch()
        train(short(updates=updates), run, resume="auto")
        assert files(run.path) == expected
        assert not list(run.path.rglob(".*"))


CHANGES = [
    ({"lag": 2}, "--lag was 1 and is 2"),
    ({"seed": 2}, "--seed was 1 and is 2"),
    ({"updates": 19}, "--updates was 20 and is 19"),
    ({"updates": 30, "hidden_size": 5}, "another training: --hidden-size was 50 and is 5."),
    ({"threads": 2}, "--threads was 1 and is 2"),
    ({"log_every": 5}, "--log-every was 4 and is 5"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_another_configuration_is_refused_and_nothing_changed(trained, capfd, changes, message, has_checkpoint):
    run = trained
    if not has_checkpoint:
        for path in run.checkpoint.parent.iterdir():
            path.unlink()
    before = everything(run.path)
    options = {**short(updates=20).to_dict(), **changes}
    arguments = [word for name, value in options.items() for word in flag(name, value)]
    assert main(["train", *arguments, "--run-dir", str(run.path), "--resume", "auto"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert "--sequences or --updates alone may grow" in error
    assert everything(run.path) == before


def flag(name, value):
    if value is None or value is False:
        return []
    return [f"--{name.replace('_', '-')}", str(value)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.metrics.unlink(), "does not hold the rows up to update 20"),
        (lambda run: run.metrics.write_text("update\n4\n8\n16\n"), "does not hold the rows up to update 20"),
        (lambda run: os.truncate(run.metrics, 10), "does not hold the rows"),
        (lambda run: run.validation.write_bytes(b"\xff"), "validation.csv' does not hold the rows"),
    ],
)
def test_lost_rows_are_not_passed_over(trained, damage, message):
    damage(trained)
    with pytest.raises(UserError, match=message):
        train(short(updates=30), trained, resume="auto")


def test_foreign_places_are_refused(tmp_path, capfd):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "text").write_text("x")
    for arguments in (
        "--resume auto",
        f"--resume auto --run-dir {tmp_path}/full",
        f"--resume auto --run-dir {tmp_path}/text",
        f"--resume {tmp_path}/text --run-dir {tmp_path}/new",
        f"--resume {tmp_path}/none --run-dir {tmp_path}/new",
        f"--resume {tmp_path} --run-dir {tmp_path}/new",
        f"--resume https://example.org/last.ckpt --run-dir {tmp_path}/new",
    ):
        assert main(["train", "--updates", "5", *arguments.split()]) == 2
        assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_two_processes_do_not_train_into_the_same_directory(tmp_path):
    configuration, run = short(updates=20), RunDirectory(tmp_path / "run")
    train(configuration, run)
    with run.lock(), pytest.raises(UserError, match="Another process is training in"):
        train(configuration, run, resume="auto")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_and_resumed(tmp_path, number):
    """It ends the update, saves where no checkpoint was due, and says how to go on."""
    command = ["train", "--updates", 400, "--log-every", 5, "--no-progress"]
    assert finish(start([*command, "--run-dir", tmp_path / "whole"], tmp_path)) == 0
    run = RunDirectory(tmp_path / "a run")
    process = start([*command, "--run-dir", run.path], tmp_path)
    assert wait_until(run.metrics.exists, process)
    os.kill(process.pid, number)
    assert finish(process) == 128 + number
    message = (tmp_path / "err").read_text()
    saved = read_checkpoint(run.checkpoint)["global_step"]
    assert f"Interrupted; update {saved:,} is saved" in message
    assert f"--run-dir '{run.path}' --resume auto" in message
    assert message.count("\n") == 1
    assert finish(start([*command, "--run-dir", run.path, "--resume", "auto"], tmp_path)) == 0
    assert files(run.path) == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_loader_process(tmp_path):
    """As by a machine that is out of memory: a sentence, and the run can go on."""
    run = RunDirectory(tmp_path / "run")
    command = ["train", "--updates", 100_000, "--log-every", 5, "--workers", 1, "--checkpoint-every", 20]
    process = start([*command, "--no-progress", "--run-dir", run.path], tmp_path)
    assert wait_until(run.checkpoint.exists, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    assert finish(process) == 2
    message = (tmp_path / "err").read_text()
    assert message.count("\n") == 1
    assert "A loader process was killed" in message
    assert "--resume auto" in message


def test_a_signal_before_anything_is_read(tmp_path, monkeypatch):
    """Lightning fails in its clean-up then; what is said is that it was interrupted."""
    run = RunDirectory(tmp_path / "run")

    def interrupted(self):
        raise Interrupted(signal.SIGHUP)

    with monkeypatch.context() as patch:
        patch.setattr("torch.utils.data.DataLoader.__iter__", interrupted)
        with pytest.raises(Interrupted, match="Interrupted; no checkpoint was saved before") as error:
            train(short(), run)
    assert error.value.number == signal.SIGHUP
    train(short(), run, resume="auto")
    with monkeypatch.context() as patch:
        patch.setattr("torch.utils.data.DataLoader.__iter__", interrupted)
        with pytest.raises(Interrupted, match="Interrupted; update 24 is saved"):
            train(short(updates=30), run, resume="auto")


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    """In the middle of an update, and what is on disk can be gone on from."""
    configuration, run = short(updates=20), RunDirectory(tmp_path / "run")
    whole = RunDirectory(tmp_path / "whole")
    train(configuration, whole)
    ended = []

    def twice(module):
        os.kill(os.getpid(), signal.SIGINT)
        ended.append("first")
        os.kill(os.getpid(), signal.SIGINT)
        ended.append("second")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            at_update(patch, 13, after=twice)
            with pytest.raises(KeyboardInterrupt) as error:
                train(configuration, run)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["first"]
    assert "update 12 is saved" in error.value.message
    train(configuration, run, resume="auto")
    assert files(run.path) == files(whole.path)


@pytest.mark.slow
def test_validation_leaves_the_training_as_it_is(tmp_path):
    for mode in ("lag", "aligned", "stateful"):
        results = []
        for every in (None, 7):
            run = RunDirectory(tmp_path / f"{mode}-{every}")
            result = train(
                replace(short(mode), validate_every=every), run, audit="raise" if mode != "stateful" else "count"
            )
            results.append((result["weights_sha256"], result["gaps"], run.metrics.read_bytes()))
        assert results[0] == results[1]
        rows = run.read_validation()
        assert rows["update"] == list(range(7, result["updates"] + 1, 7))
        assert set(rows["targets"]) == {result["targets"]}


def test_the_last_validation_is_the_evaluation(tmp_path):
    run = RunDirectory(tmp_path / "run")
    result = train(short(), run)
    rows = run.read_validation()
    # The losses of a chunk are added in float32, and an evaluation joins chunks.
    assert (rows["accuracy"][-1], rows["loss"][-1]) == (result["accuracy"], pytest.approx(result["loss"], rel=1e-6))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop(CHECKPOINT_KEY), "is not one of a run here"),
        (lambda c: c.pop("run"), "is not one of a run here"),
        (lambda c: c["run"].update(config={"mode": "lag", "hidden_size": -1}), "is not one of a run here"),
        (lambda c: c["run"]["config"].update(seed=9), "seed` was 9 and is 1"),
        (lambda c: c[CHECKPOINT_KEY].update(cursor=3), "is not one of a run here"),
        (lambda c: c[CHECKPOINT_KEY].update(ranks=[]), "is not one of 1 processes"),
        (lambda c: c["state_dict"].update({"model.lstm.weight_ih_l0": torch.zeros(2)}), "belongs to another network"),
        (lambda c: c["state_dict"].clear(), "belongs to another network"),
        (lambda c: c["state_dict"].update(more=torch.zeros(2)), "belongs to another network: more must be absent"),
        (lambda c: c["optimizer_states"].clear(), "does not hold what Adam remembers"),
        (lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)), "what Adam remembers"),
        (lambda c: c[CHECKPOINT_KEY]["ranks"][0].update(carry=[torch.zeros(1, 5, 3)] * 2), "`carry`"),
        (lambda c: c[CHECKPOINT_KEY]["ranks"][0].update(carry=[]), "cannot be continued from"),
        (lambda c: c[CHECKPOINT_KEY]["ranks"][0].update(carry=[torch.zeros(1, 4, 50)] * 2), "lanes"),
        (lambda c: c[CHECKPOINT_KEY]["ranks"][0].update(pooled=torch.zeros(7)), "cannot be continued from"),
        (lambda c: c[CHECKPOINT_KEY]["ranks"][0]["random"].update(torch=torch.zeros(7)), "cannot be continued from"),
        (lambda c: c["loops"].clear(), "cannot be continued from"),
        (lambda c: c.update(loops=7), "cannot be continued from"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(trained, damage, message):
    """Its digest is right: somebody made it so, or took it from elsewhere."""
    checkpoint = read_checkpoint(trained.checkpoint)
    damage(checkpoint)
    write_checkpoint(checkpoint, trained.checkpoint)
    with pytest.raises(UserError, match=message):
        train(short(updates=30), trained, resume=trained.checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--workers", "--devices"])
def test_the_program_itself_is_killed_and_interrupted(tmp_path, option):
    """As a user does it, from a terminal, whose Ctrl-C reaches all processes; nothing of them is left running."""
    command = [sys.executable, str(ROOT / "train.py"), "--updates", "500", "--checkpoint-every", "50", "--no-progress"]
    command += [option, "2", "--validate-every", "200", "--run-dir"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    run, codes = RunDirectory(tmp_path / "run"), []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, None):
        before = run.checkpoint.stat().st_mtime_ns if run.checkpoint.exists() else 0
        process = subprocess.Popen(
            [*command, str(run.path), "--resume", "auto"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen,
        )
        while number and not (run.checkpoint.exists() and run.checkpoint.stat().st_mtime_ns > before):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        if number:
            (process.send_signal if number == signal.SIGKILL else partial(os.killpg, process.pid))(number)
        _, error = process.communicate(timeout=120)
        codes.append(process.returncode)
        assert "Traceback" not in error
        time.sleep(1.5)  # the others notice within a second that the first is gone
        assert str(run.path) not in subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout
    assert codes == [-9, 130, -9, 143, 0]
    assert files(run.path) == files(tmp_path / "whole")
    assert json.loads(run.result.read_text())["config"][option[2:]] == 2
