"""Nobody reads standard output or standard error any more, they cannot write a letter, or somebody waits for them."""

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import finish, start
from support.runs import at_update

from echo_torch import RunDirectory, configure, waiting
from echo_torch.cli import flags, main, train
from echo_torch.lab import figures, output, runner
from echo_torch.lab.plan import Plan
from echo_torch.training import progress

QUICK = ["--updates", "12", "--vocabulary-size", "10", "--hidden-size", "5", "--accelerator", "cpu"]
FILES = {"checkpoints", "config.yaml", "curve.png", "metrics.csv", "result.json"}


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def quickly(request, monkeypatch):
    """A short evaluation, and no picture."""
    if getattr(request, "param", True):
        monkeypatch.setattr(Plan.evaluation, "__defaults__", (20,))
        monkeypatch.setattr(figures, "draw_curve", lambda run, configuration, result, path: path.touch())


@contextlib.contextmanager
def without_reader():
    """A stream that a `head` has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        yield stream
        stream.flush()  # as Python does at its end: nothing is left that could fail


def test_a_closed_output_does_not_end_a_training(capsys):
    with without_reader() as out, contextlib.redirect_stdout(out):
        assert main(["train", *QUICK, "--no-progress", "--run-dir", "run"]) == 0
    assert capsys.readouterr().err == (
        "Standard output is closed. The run goes on without it, and its files are in 'run'.\n"
    )
    assert {path.name for path in Path("run").iterdir()} == FILES


def test_nor_does_a_closed_standard_error_under_a_bar_and_warnings(monkeypatch):
    monkeypatch.setattr(flags, "is_watched", lambda: True)
    monkeypatch.setattr(progress.Bar, "REFRESH_SECONDS", 0)
    drawn = []
    draw = progress.Bar._draw
    monkeypatch.setattr(progress.Bar, "_draw", lambda bar, trainer: drawn.append(1) or draw(bar, trainer))
    with (
        without_reader() as out,
        without_reader() as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert main(["train", "--mode", "stateful", "--kernel", "autograd", *QUICK, "--run-dir", "run"]) == 0
    assert len(drawn) >= 12
    assert {path.name for path in Path("run").iterdir()} == FILES


def test_where_the_output_is_the_point_a_closed_one_ends_quietly(capsys):
    for command in (["reach"], ["reach", "--json"], ["train", "--print-config"]):
        with without_reader() as out, contextlib.redirect_stdout(out):
            assert main(command) == 0
    assert capsys.readouterr().err == ""
    assert list(Path().iterdir()) == []


def test_another_pipe_that_breaks_is_no_closed_output(capsys, monkeypatch):
    def broken(*given, **options):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(runner, "train", broken)
    assert main(["train", *QUICK, "--run-dir", "run"]) == 2
    assert capsys.readouterr().err.endswith("cannot be used: Broken pipe.\n")


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("ascii", "strict", b"\\u20ac.txt"),
        ("ascii", "surrogateescape", b"\\u20ac.txt"),
        ("ascii", "replace", b"?.txt"),
        ("utf-8", "strict", "\u20ac.txt".encode()),
    ],
)
def test_letters_that_the_encoding_has_not_are_escaped(encoding, errors, shown):
    Path("\u20ac.txt").write_text("1 2 3 " * 100)
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding=encoding, errors=errors)
    with contextlib.redirect_stdout(out):
        assert main(["reach", "--data", "\u20ac.txt"]) == 0
    assert written.getvalue().splitlines()[0].endswith(b", from " + shown)
    assert out.errors == errors


def test_bytes_of_a_path_that_is_no_text_are_written_as_they_are():
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="utf-8", errors="surrogateescape")
    with contextlib.redirect_stdout(out), output.that_ends_nothing():
        print(os.fsdecode(b"\xff"), flush=True)
    assert written.getvalue() == b"\xff\n"


def test_a_backend_that_matplotlib_does_not_know_is_not_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    main([])
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.slow
@pytest.mark.parametrize("quickly", [False], indirect=True)
def test_settings_of_matplotlib_from_outside_change_nothing():
    """In a process of its own, because they are read when it is imported."""
    Path("matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 9\nsavefig.dpi: 30\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[2]), "MPLBACKEND": "nonsense"}
    command = [sys.executable, "-m", "echo_torch", "train", *QUICK, "--quiet", "--run-dir", "run"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    run = RunDirectory(Path("run"))
    drawn = run.curve.read_bytes()
    figures.draw_curve(run, run.read_saved()[0], run.read_result(), run.curve)
    assert run.curve.read_bytes() == drawn


@pytest.fixture
def begun(monkeypatch):
    """What somebody waits for, and what they are shown; nothing is said."""
    found = []
    monkeypatch.setattr(
        waiting.Waiting, "begin", lambda self: found.append((self._doing.split(",")[0], self._progress))
    )
    return found


TRAINING = ["Following what each row reads", "Making the network", "Training"]
EVALUATION = ["Evaluating", "Evaluating", "Following what each row reads"]
AFTERWARDS = ["Drawing curve.png", "Answering one sequence"]


@pytest.mark.parametrize(
    ("is_terminal", "words", "shown"), [(False, [], "line"), (True, [], True), (False, ["--quiet"], False)]
)
def test_all_that_a_training_waits_for_is_shown(begun, monkeypatch, capsys, is_terminal, words, shown):
    monkeypatch.setattr(flags, "is_watched", lambda: is_terminal)
    assert main(["train", *QUICK, "--run-dir", "run", *words]) == 0
    expected = [*TRAINING, *EVALUATION, *AFTERWARDS]
    if shown != "line":
        expected.remove("Training")  # a bar of its own, or nothing
    if not shown:
        expected.remove("Answering one sequence")
    assert begun == [(doing, shown) for doing in expected]
    drawn = capsys.readouterr().err
    assert ("12/12 updates" in drawn) == (shown is True)
    assert ("% (chance 10.0%, ceiling 100.0%), 00:00 left" in drawn) == (shown is True)


def test_who_wants_no_bar_gets_a_sentence(monkeypatch):
    for is_terminal, no_progress, shown in ((True, True, "line"), (False, True, "line"), (True, False, True)):
        monkeypatch.setattr(flags, "is_watched", lambda is_terminal=is_terminal: is_terminal)
        assert flags.shown(argparse.Namespace(no_progress=no_progress)) == shown


def test_so_is_what_the_other_commands_wait_for(begun, capsys):
    main(["train", *QUICK, "--run-dir", "run", "--quiet"])
    begun.clear()
    for command, expected in (
        (["reach"], ["Following what each row reads"]),
        (["evaluate", "--run", "run"], [*EVALUATION, "Answering one sequence"]),
        (["predict", "--run", "run", "--ahead"], ["Asking for the next number"]),
        (["predict", "--run", "run", "--explain", *"123456"], ["Replacing each number in turn"]),
    ):
        assert main(command) == 0
        assert begun == [(doing, "line") for doing in expected]
        begun.clear()


def test_nothing_is_shown_to_python_by_itself(begun, tmp_path):
    runner.train(configure("lag", updates=2, hidden_size=3, accelerator="cpu"), RunDirectory(tmp_path / "run"))
    assert {shown for _, shown in begun} == {False}


ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(ALLOCATOR),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_a_memory_that_does_not_suffice_is_one_sentence(capsys, monkeypatch, error):
    """With what was asked of it, what is kept, and the way out; also of a run that goes on."""

    def fail(module):
        raise error

    command = ["train", *QUICK, "--checkpoint-every", "5", "--quiet", "--run-dir", "run", "--resume", "auto"]
    for update, kept in ((7, "Update 5 is saved in"), (5, "Update 5 is saved in")):
        with monkeypatch.context() as patch:
            at_update(patch, update, before=fail)
            assert main(command) == 2
        said = capsys.readouterr().err
        assert said.startswith("The memory does not suffice for 10 symbols, a network with hidden size 5 and 400 param")
        assert kept in said
        assert "Make --vocabulary-size, --hidden-size, --batch-size, --window or --length smaller, or write" in said
        assert said.count("\n") == 1


def test_so_is_one_that_does_not_suffice_for_anything_else(capsys, monkeypatch):
    def fail(*given, **options):
        raise MemoryError("Unable to allocate 5 GiB")

    monkeypatch.setattr("echo_torch.diagnosis.data_path.reaching.Followed.add", fail)
    assert main(["reach"]) == 2
    assert capsys.readouterr().err.startswith("The memory does not suffice for 100 symbols")
    monkeypatch.setattr("echo_torch.lab.run_directory.RunDirectory.read_config", fail)
    assert main(["evaluate", "--run", "run"]) == 2
    assert capsys.readouterr().err == (
        "The memory does not suffice for this (MemoryError: Unable to allocate 5 GiB).\n"
    )


def test_an_error_of_this_program_is_no_want_of_memory(monkeypatch):
    def fail(*given, **options):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("echo_torch.diagnosis.data_path.reaching.Followed.add", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        main(["reach"])


@pytest.mark.slow
def test_a_real_limit_of_the_memory(tmp_path):
    """A vocabulary as large as is allowed, in an address space that holds no such network."""
    words = ["--vocabulary-size", "700000", "--encoding", "one-hot", "--run-dir", tmp_path / "run", "--quiet"]
    process = start(["train", *QUICK[:2], *words], tmp_path)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (4 * 10**9, 4 * 10**9))
    assert finish(process) == 2
    said = (tmp_path / "err").read_text()
    assert said.startswith("The memory does not suffice for 700,000 symbols")
    assert "Traceback" not in said
    assert said.count("\n") == 1
