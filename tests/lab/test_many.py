import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.runs import short
from support.signals import listen

from echo_torch.cli import main
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import replace
from echo_torch.intervals import mean_and_interval
from echo_torch.lab.comparison import ARMS, comparison_runs
from echo_torch.lab.grids import Grid
from echo_torch.lab.many import train_many
from echo_torch.lab.map_and_lags import lags_table, map_table
from echo_torch.lab.tables import symbols_to_skill
from echo_torch.training.checkpoints import read_checkpoint

ROOT = Path(__file__).parents[2]


def tiny(seed=1, **options):
    return short("aligned", vocabulary_size=10, updates=20, log_every=5, seed=seed, **options)


@pytest.mark.slow
def test_finished_runs_are_kept_and_unfinished_ones_done_again(tmp_path):
    runs = {f"seed{seed}": tiny(seed) for seed in (1, 2)}
    first = train_many(runs, tmp_path, num_jobs=2)
    stamp = (tmp_path / "seed1" / "result.json").stat().st_mtime_ns
    (tmp_path / "seed2" / "result.json").unlink()
    again = train_many(runs, tmp_path, num_jobs=1)
    assert (tmp_path / "seed1" / "result.json").stat().st_mtime_ns == stamp
    assert {name: result["weights_sha256"] for name, result in first.items()} == {
        name: result["weights_sha256"] for name, result in again.items()
    }


@pytest.mark.slow
def test_a_damaged_or_foreign_run_is_refused_and_kept(tmp_path):
    runs = {"one": tiny()}
    train_many(runs, tmp_path, num_jobs=1)
    with pytest.raises(UserError, match="finished run with other options"):
        train_many({"one": replace(tiny(), lag=2)}, tmp_path)
    result = tmp_path / "one" / "result.json"
    whole = json.loads(result.read_text())
    result.write_text(json.dumps({name: value for name, value in whole.items() if name != "accuracy_reset"}))
    with pytest.raises(UserError, match="has no 'accuracy_reset'"):
        train_many(runs, tmp_path)
    result.write_text(json.dumps(whole))
    for damage in (result.read_bytes()[:50], b"", b"[]", b"\xff"):
        result.write_bytes(damage)
        with pytest.raises(UserError, match=r"damaged|cannot be read"):
            train_many(runs, tmp_path)
        assert result.read_bytes() == damage
    result.write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        train_many(runs, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="`run` cannot be used"):
        train_many(runs, tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_an_interrupt_ends_all_processes_and_keeps_what_is_finished(tmp_path, number):
    command = [sys.executable, "-m", "echo_torch", "compare", "--seeds", "3", "--jobs", "1", "--run-dir", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--arms", "stateful", "lag", "aligned-1"],  # three shapes, so three stacks
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
    )
    first = tmp_path / "stateful-seed1" / "result.json"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    if number == signal.SIGKILL:
        time.sleep(1.5)  # the others notice within a second that it is gone
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + number
        assert re.match("Interrupted; [1-3] of the 9 runs that were to do are finished and kept in ", error)
        assert error.count("\n") == 1
    assert first.exists()
    assert not (tmp_path / "aligned-1-seed3" / "result.json").exists()
    children = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in children
    assert os.path.isdir(tmp_path)


@pytest.mark.slow
def test_a_killed_process_is_a_sentence_and_the_run_goes_on(tmp_path):
    """As by a machine that is out of memory. What the run had saved is not done again."""
    runs, said = {"one": replace(tiny(), updates=60_000, log_every=1000, checkpoint_every=20)}, []

    def sweep():
        with pytest.raises(UserError) as error:
            train_many(runs, tmp_path)
        said.append(str(error.value))

    thread = threading.Thread(target=sweep)
    thread.start()
    checkpoint = tmp_path / "one" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists():
        assert thread.is_alive()
        time.sleep(0.05)
    for process in multiprocessing.active_children():
        process.kill()
    thread.join(60)
    assert said[0].startswith("One of the processes was killed, perhaps for want of memory; what is finished is kept")
    begun = read_checkpoint(checkpoint)["run"]["seconds"]
    result = train_many(runs, tmp_path)["one"]
    assert result["seconds"] > begun
    assert result["updates"] == 60_000


def test_a_worker_makes_no_semaphore_that_a_kill_would_leave():
    """Of the system's semaphores that a killed worker leaves behind Python warns, beside the one sentence."""
    code = (
        "from echo_torch.lab.many import _begin_worker, os, tqdm; _begin_worker(os.getppid()); print(tqdm.get_lock())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "_thread.RLock" in done.stdout


def test_interval_against_known_values():
    mean, half = mean_and_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, half) == (3.0, pytest.approx(2.776 * 2.5**0.5 / 5**0.5, rel=3e-4))
    assert mean_and_interval([0.5]) == (0.5, None)


def test_every_arm_is_a_configuration():
    runs = comparison_runs(list(ARMS), 2)
    assert len(runs) == 2 * len(ARMS)
    assert runs["stateful-lag6-uncut-seed2"].reading.cut == "sequence"
    assert runs["stateful-uncut-seed1"].learning_rate == runs["stateful-lag6-uncut-seed1"].learning_rate == 3e-3


def test_symbols_to_skill_pools_the_last_100_sequences():
    rows = [0.5, 0.5, 1.0, 1.0, 1.0, 0.0]
    metrics = {
        "symbols": [1250.0 * n for n in range(1, 7)],
        "accuracy": rows,
        "targets": [500.0] * 6,
    }
    assert symbols_to_skill(metrics) == 5000
    assert symbols_to_skill({**metrics, "accuracy": [0.98] * 6}) is None
    assert symbols_to_skill({**metrics, "accuracy": [1.0] * 6}) == 2500
    assert symbols_to_skill({"symbols": [1000.0], "accuracy": [1.0], "targets": [900.0]}) is None


def a_result(accuracy, targets=1000, **changes):
    usual = {
        "accuracy_reset": accuracy,
        "accuracy_by_chunk": [None, accuracy],
        "seconds": 1.0,
        "parameters": 7,
        "updates": 5,
        "chance": 0.1,
    }
    return {"accuracy": accuracy, "targets": targets, **usual, **changes}


def write_metrics(folder, names, accuracies):
    for name, accuracy in zip(names, accuracies, strict=True):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "metrics.csv").write_text(f"symbols,accuracy,targets\n2500,{accuracy},2500\n")


def test_the_grid_names_every_cell(tmp_path):
    grid = Grid("aligned", {"lag": [0, 1], "chunk": [1, 2], "learning_rate": [0.001, 0.01]}, 2, {"updates": 5})
    runs = grid.runs()
    assert len(runs) == 16
    c = runs["lag1-chunk2-learningrate0.01-seed2"]
    assert (c.reading.lag, c.reading.chunk, c.learning_rate, c.seed) == (1, 2, 0.01, 2)
    results = {name: a_result(c.reading.chunk / 10 + c.reading.lag / 2) for name, c in runs.items()}
    write_metrics(tmp_path, results, [1.0] * 16)
    cells = grid.cells(results, tmp_path)
    assert cells[2]["accuracy_by_chunk"] == [None, 0.2]
    assert [cell["accuracy"] for cell in cells] == [0.1, 0.1, 0.2, 0.2, 0.6, 0.6, 0.7, 0.7]
    assert {(cell["sequences_to_99"], cell["seeds_to_99"], cell["seeds"]) for cell in cells} == {(100.0, 2, 2)}
    lines = map_table(grid, cells).splitlines()
    assert lines[0] == "| learning rate | lag | chunk 1 | chunk 2 |"
    assert lines[3] == "| 0.001 | 1 | 60.00%, 60.00% | 70.00%, 70.00% |"
    assert len(lines) == 2 + 4


def test_lags_stand_side_by_side_carried_and_reset(tmp_path):
    grid = Grid("lag", {"lag": [4], "hidden_size": [50], "carry": ["keep", "reset"]}, 3, {"sequences": 100})
    runs = grid.runs()
    results = {
        n: a_result(0.25 if c.reading.carry == "keep" else 1.0, 20_000, accuracy_reset=0.96) for n, c in runs.items()
    }
    write_metrics(tmp_path, runs, [0.5, 0.5, 0.5, 1.0, 1.0, 0.5])
    kept, reset = lags_table(grid.cells(results, tmp_path)).splitlines()[2:]
    assert kept == "| 4 | 50 | carried | 25.00%, 25.00%, 25.00% | 96.00% | not within 100 | 1.0 | 7 |"
    assert reset == "| 4 | 50 | reset | 100.00%, 100.00%, 100.00% | 96.00% | 100; 100 (2 of 3 seeds) | 1.0 | 7 |"


def test_an_interval_over_seeds_is_never_narrower_than_sampling(tmp_path):
    """Three seeds that agree by accident: 27.63 % of 20,000 targets each, 0.36 % by sampling alone."""
    grid = Grid("lag", {"lag": [4], "hidden_size": [50], "carry": ["keep"]}, 3, {})
    names = list(grid.runs())
    write_metrics(tmp_path, names, [0.5] * 3)

    def half(accuracies):
        results = {name: a_result(share, 20_000) for name, share in zip(names, accuracies, strict=True)}
        return grid.cells(results, tmp_path)[0]["accuracy_half_interval"]

    assert half([0.2763, 0.2762, 0.2764]) == pytest.approx(0.00358, abs=2e-5)
    assert half([0.1, 0.2, 0.3]) == pytest.approx(4.303 * 0.1 / 3**0.5, rel=3e-4)


@pytest.mark.slow
def test_compare_and_map_leave_tables_and_figures(tmp_path, capsys):
    assert (
        main(["compare", "--seeds", "1", "--arms", "aligned-5", "--run-dir", str(tmp_path / "c"), "--no-progress"]) == 0
    )
    assert "| aligned lanes, chunks of 5 | 0 | 100.0% |" in capsys.readouterr().out
    arguments = [
        "map",
        "--lags",
        "0",
        "1",
        "--chunks",
        "1",
        "2",
        "--updates",
        "20",
        "--learning-rates",
        "0.003",
        "0.01",
    ]
    arguments += ["0.01", "--no-progress"]
    assert main([*arguments, "--run-dir", str(tmp_path / "m")]) == 0
    arguments = ["lags", "--lags", "1", "2", "--hidden-sizes", "5", "8", "--sequences", "20", "--seeds", "2"]
    assert main([*arguments, "--run-dir", str(tmp_path / "l"), "--no-progress"]) == 0
    for name in ("l/lags.md", "l/lags.json", "l/lags.png"):
        assert (tmp_path / name).stat().st_size > 0
    cells = json.loads((tmp_path / "l/lags.json").read_text())
    assert [(cell["lag"], cell["hidden_size"], cell["carry"]) for cell in cells[:3]] == [
        (1, 5, "keep"), (1, 5, "reset"), (1, 8, "keep"),
    ]  # fmt: skip
    for name in ("c/comparison.md", "c/comparison.json", "m/map.md", "m/map.json"):
        assert (tmp_path / name).stat().st_size > 0
    for name in ("c/curves.png", "c/reach_by_horizon.png", "m/map.png", "m/map_seeds.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        "compare --arms staeful",
        "compare --seeds 0",
        "compare --seeds x",
        "compare --jobs 0",
        "map --lags",
        "lags --lags 5",
        "lags --hidden-sizes 0",
        "lags --sequences x",
        "map --chunks",
        "map --chunks 0",
        "map --lags -1",
        "map --updates 0",
        "map --learning-rates 0",
        "map --learning-rates x",
        "lags --carry kep",
        "map --vocabulary-size 1",
    ],
)
def test_bad_input(capfd, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "--" in error
    assert list(tmp_path.iterdir()) == []
