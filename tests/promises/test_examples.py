"""The programs in examples/ run, end with what they promise, and stay short."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# Of each program what it prints, as far as it does not hang on the machine.
PROGRAMS = {
    "audit_in_a_trainer": ["as they are: {0: 44}", "one lost: {0: 36, 5: 4}", "5 steps are skipped (4 of 4 lanes)"],
    "carry_in_a_loop": ["saved after 213 and gone on with"],
    "carry_in_a_module": ["weights equal to the bit"],
    "echo_by_regression": ["off by 0.", "rounded to the right number in"],
    "exact_resume": ["weights equal to the bit"],
    "own_model": ["state space model", "transformer with a cache"],
    "reach_of_own_loader": ["windows in order: gap 30, answers read before: 0%", "windows by row: gap 0"],
    "sensor_series": ["gap between chunks: 0"],
    "sweep_on_dask": ["12 runs are finished"],
    "sweep_on_ray": ["12 runs are finished"],
    "watch_a_loop": [
        "as_it_should_be: lstm is called 20 times in training: 19 with what an earlier call left, 1 without a state.",
        "fields-swapped in lstm: In 19 of 19 calls",
        "not-detached in lstm: In 1 of 1 updates",
    ],
}
PARTS = {"state_space", "transformer"}  # models that programs use
ENGINES = {"sweep_on_dask": "distributed", "sweep_on_ray": "ray"}  # what some need besides


def test_all_are_here_and_short():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PROGRAMS) | PARTS
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_runs_and_says_what_it_promises(name, tmp_path):
    if name in ENGINES and importlib.util.find_spec(ENGINES[name]) is None:
        pytest.skip(f"{ENGINES[name]} is not installed; .ci/run installs it")
    with tempfile.TemporaryDirectory(prefix="ray-") as files:  # a path that is short enough for Ray's sockets
        found = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "RAY_TMPDIR": files},
        )
    assert found.returncode == 0, found.stderr
    for words in PROGRAMS[name]:
        assert words in found.stdout
