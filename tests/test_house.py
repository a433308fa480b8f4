"""What holds for the whole house: public lists, what is imported when, what no library half may say."""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import echo_torch
from echo_torch import RunDirectory, configure, train

PACKAGE = Path(echo_torch.__file__).parent
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
NAMES = [
    "Carry", "Chunk", "Configuration", "EXPERIMENTS", "EchoGRU", "EchoLSTM", "EchoMLP", "EchoModule", "EchoPredictor",
    "EchoRNN", "EchoStream", "Evaluation", "Frames", "LSTMState", "LaneLayout", "OnlineEcho", "OwnSeries",
    "RandomSymbols", "RunDirectory", "SeriesLayout", "Stamps", "StateAudit", "StateWatch", "StreamData", "UserError",
    "WindowLayout", "collate_chunk", "configure", "detach_state", "evaluate", "explain", "frame_windows",
    "generate_sequence", "grid_of", "one_hot_decode", "one_hot_encode", "probe", "reach", "reach_of", "read_sweep",
    "replace", "reset_state", "run_comparison", "run_lags", "run_map", "run_sweep", "train", "train_many", "watch",
]  # fmt: skip


def test_the_front_door():
    assert sorted(echo_torch.__all__) == sorted(NAMES)
    assert all(getattr(echo_torch, name) is not None for name in NAMES)
    assert set(NAMES) <= set(dir(echo_torch))
    with pytest.raises(AttributeError, match="nonsense"):
        echo_torch.nonsense  # noqa: B018


NO_DOCTEST = {
    "train": "leaves a directory",
    "run_comparison": "trains for minutes",
    "run_lags": "trains for minutes",
    "run_map": "trains for minutes",
    "run_sweep": "leaves a folder",
    "train_many": "leaves a folder",
    "read_sweep": "reads a folder",
    "grid_of": "is shown by Grid",
    "EXPERIMENTS": "has no docstring: it is a table",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_shows_its_use(name):
    """Its docstring or that of one of its methods holds an example that is run."""
    found = doctest.DocTestFinder(exclude_empty=True).find(getattr(echo_torch, name), name)
    assert any(test.examples for test in found) != (name in NO_DOCTEST)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_has_one_public_list(wing):
    """Each name is there, from a module of that wing; none is hidden by a module of the same name."""
    found = importlib.import_module(f"echo_torch.{wing}")
    assert found.__all__
    modules = {path.stem for path in (PACKAGE / wing).glob("*.py")}
    for name in found.__all__:
        assert name not in modules
        value = getattr(found, name)
        assert getattr(value, "__module__", f"echo_torch.{wing}").startswith(f"echo_torch.{wing}")


def imported(program):
    words = "('torch', 'numpy', 'pytorch_lightning', 'lightning', 'matplotlib', 'mpmath', 'torch.optim')"
    program += f"\nimport sys; print([name for name in {words} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, input="1\n")
    return ast.literal_eval(found.stdout.splitlines()[-1])


def test_importing_the_package_costs_nothing():
    names = ", ".join(f"echo_torch.{wing}" for wing in WINGS)
    assert imported(f"import echo_torch, {names}") == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("house") / "run")
    train(configure("lag", updates=2, hidden_size=3, accelerator="cpu"), run)
    return run.path


@pytest.mark.parametrize(
    "command",
    [
        "reach --mode lag",
        pytest.param("predict --run {} 1 2 3 4 5 6", marks=pytest.mark.slow),
        pytest.param("evaluate --run {}", marks=pytest.mark.slow),
        "stream --run {}",
    ],
)
def test_what_needs_no_lightning_does_not_wait_for_it(run, command):
    words = command.format(run).split()
    found = imported(f"from echo_torch.cli import main; assert main({words!r}) == 0")
    assert "pytorch_lightning" not in found
    assert "mpmath" not in found


def test_no_flag_stands_in_a_sentence_of_the_library_half():
    """Flags are the command line's. A command that is shown whole, and the flags of an option, are data."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if is_text and node.value != "--mode":  # of which `command_line` is made
                assert not re.search(r"(^|[\s(])--[a-z]", node.value), (path, node.lineno)


def test_nothing_begins_threads_while_it_is_imported():
    """Torch's threads are gone in a process that is forked afterwards, and it waits for them."""
    program = (
        "import importlib, os, sys, torch\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    names = ["echo_torch.lab.runner", "echo_torch.inference.predictor", "echo_torch.diagnosis.watching.watcher"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout == "0\n"
