import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from echo_torch import configure
from echo_torch.cli import main
from echo_torch.comparison import ARMS, Grid, comparison_runs, map_table, symbols_to_skill
from echo_torch.experiments import replace
from echo_torch.files import UserError
from echo_torch.sweep import mean_and_interval, run_all

ROOT = Path(__file__).parent.parent


def tiny(seed=1, **options):
    return configure("aligned", vocabulary_size=10, updates=20, log_every=5, accelerator="cpu", seed=seed, **options)


def test_finished_runs_are_kept_and_unfinished_ones_done_again(tmp_path):
    runs = {f"seed{seed}": tiny(seed) for seed in (1, 2)}
    first = run_all(runs, tmp_path, num_jobs=2)
    stamp = (tmp_path / "seed1" / "result.json").stat().st_mtime_ns
    (tmp_path / "seed2" / "result.json").unlink()
    again = run_all(runs, tmp_path, num_jobs=1)
    assert (tmp_path / "seed1" / "result.json").stat().st_mtime_ns == stamp
    assert {name: result["weights_sha256"] for name, result in first.items()} == {
        name: result["weights_sha256"] for name, result in again.items()
    }


def test_a_damaged_or_foreign_run_is_refused_and_kept(tmp_path):
    runs = {"one": tiny()}
    run_all(runs, tmp_path, num_jobs=1)
    with pytest.raises(UserError, match="finished run with other options"):
        run_all({"one": replace(tiny(), lag=2)}, tmp_path)
    result = tmp_path / "one" / "result.json"
    for damage in (result.read_bytes()[:50], b"", b"[]", b"\xff"):
        result.write_bytes(damage)
        with pytest.raises(UserError, match=r"damaged|cannot be read"):
            run_all(runs, tmp_path)
        assert result.read_bytes() == damage
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--run-dir cannot be used"):
        run_all(runs, tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_ends_all_processes_and_keeps_what_is_finished(tmp_path, number):
    command = [sys.executable, "-m", "echo_torch", "compare", "--seeds", "3", "--arms", "aligned-5", "--jobs", "1"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = tmp_path / "aligned-5-seed1" / "result.json"
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
        assert error.startswith("Interrupted; 1 of the 3 runs that were to do are finished and kept in ")
        assert error.count("\n") == 1
    assert first.exists()
    assert not (tmp_path / "aligned-5-seed3" / "result.json").exists()
    children = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in children
    assert os.path.isdir(tmp_path)


def test_interval_against_known_values():
    mean, half = mean_and_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, half) == (3.0, pytest.approx(2.776 * 2.5**0.5 / 5**0.5))
    assert mean_and_interval([0.5]) == (0.5, None)


def test_every_arm_is_a_configuration():
    runs = comparison_runs(list(ARMS), 2)
    assert len(runs) == 2 * len(ARMS)
    assert runs["stateful-lag6-uncut-seed2"].cut == "sequence"
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


def test_the_grid_names_every_cell(tmp_path):
    grid = Grid("aligned", (0, 1), "chunk", (1, 2), 2, {"updates": 5})
    assert len(grid.runs()) == 8
    results = {
        name: {"accuracy": c.chunk / 10 + c.lag, "seconds": 1.0, "parameters": 7} for name, c in grid.runs().items()
    }
    for name in results:
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("symbols,accuracy,targets\n2500,1.0,2500\n")
    cells = grid.cells(results, tmp_path)
    assert [cell["accuracy"] for cell in cells] == [0.1, 0.2, 1.1, 1.2]
    assert {(cell["sequences_to_99"], cell["seeds_to_99"], cell["seeds"]) for cell in cells} == {(100.0, 2, 2)}
    assert "| 1 | 110.00% ± 0.00% | 120.00% ± 0.00% |" in map_table(grid, cells)


@pytest.mark.slow
def test_compare_and_map_leave_tables_and_figures(tmp_path, capsys):
    assert (
        main(["compare", "--seeds", "1", "--arms", "aligned-5", "--run-dir", str(tmp_path / "c"), "--no-progress"]) == 0
    )
    assert "| aligned lanes, chunks of 5 | 0 | 100.0% |" in capsys.readouterr().out
    arguments = ["map", "--lags", "0", "1", "--chunks", "1", "2", "--updates", "20", "--no-progress"]
    assert main([*arguments, "--run-dir", str(tmp_path / "m")]) == 0
    arguments = ["lags", "--lags", "1", "2", "--hidden-sizes", "5", "8", "--sequences", "20", "--seeds", "2"]
    assert main([*arguments, "--run-dir", str(tmp_path / "l"), "--no-progress"]) == 0
    for name in ("l/lags.md", "l/lags.json", "l/lags.png"):
        assert (tmp_path / name).stat().st_size > 0
    for name in ("c/comparison.md", "c/comparison.json", "m/map.md", "m/map.json"):
        assert (tmp_path / name).stat().st_size > 0
    for name in ("c/curves.png", "c/reach_by_horizon.png", "m/map.png"):
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
