"""Random and hostile input: never a traceback, a hang or a half-written file; a refusal is one sentence and code 2.

FUZZ_EXAMPLES=20000 python -m pytest tests/promises/test_fuzz.py -n 0 -s     more of it, and how much was tried
"""

import contextlib
import io
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_checkpoints import with_digest

import echo_torch.lab.finished
from echo_torch import RunDirectory, configure, train
from echo_torch.cli import main
from echo_torch.data.own_symbols import open_numbers
from echo_torch.errors import Interrupted, UserError
from echo_torch.experiments.configuration import EXPERIMENTS, OPTIONS
from echo_torch.lab import comparison, estimate, preview, runner, sweep
from echo_torch.lab.finished import load_model
from echo_torch.lab.plan import Plan
from echo_torch.lab.results import read_finished
from echo_torch.training.checkpoints import CheckpointError, read_checkpoint

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
TRIED = Counter()
COMMANDS = ["train", "show", "reach", "sweep", "compare", "map", "lags", "evaluate", "predict", "stream"]
FLAGS = [option.flag for option in OPTIONS.values()]
FLAGS += ["--mode", "--config", "--run-dir", "--resume", "--print-config", "--run", "--seeds", "--arms", "--lags"]
FLAGS += ["--grid", "--shard", "--dry-run", "--status"]
FLAGS += ["--chunks", "--hidden-sizes", "--jobs", "--file", "--top", "--ahead", "--explain", "--json", "--no-progress"]
FLAGS += ["--batches"]

hostile = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
numbers = st.one_of(
    st.integers(-3, 300).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["1e3", "0x10", "1_000", "٣", "nan", "inf", "-0", "9" * 5000, "1e999", "", " ", "None", "true"]),
)
# What a command line can hold: any text but NUL.
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)
places = st.sampled_from(["none", ".", "/", "/dev/null", "/dev/zero", "a/b", "full", "full/file", "~", "\n", "x" * 300])
words = st.one_of(
    numbers, texts, places, st.sampled_from(FLAGS), st.sampled_from([*EXPERIMENTS, "auto", "digits", "cpu", "gru"])
)
pairs = st.tuples(st.sampled_from(FLAGS), st.one_of(numbers, places, texts)).map(list)
lines_of_words = st.lists(st.one_of(words.map(lambda word: [word]), pairs), max_size=6).map(
    lambda parts: [*itertools.chain(*parts)]
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").touch()
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("fuzz") / "run")
    train(configure("lag", vocabulary_size=7, hidden_size=3, updates=4, accelerator="cpu"), run)
    return run


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """What was accepted ends where the work would begin."""

    def accepted(*args, **kwargs):
        raise Interrupted(2, "accepted")

    for part, name in (
        (runner, "train"),
        (Plan, "reach"),
        (preview, "preview"),
        (comparison, "train_many"),
        (sweep, "train_many"),
        (estimate, "estimate"),
        (echo_torch.lab.finished, "load_weights"),
    ):
        monkeypatch.setattr(part, name, accepted)
    return accepted


def call(arguments, stdin=b""):
    """Run a command; return its exit code, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as error:  # --help
                code = error.code
    finally:
        sys.stdin = before
    return code, out.getvalue(), err.getvalue()


def check(arguments, stdin=b""):
    """A command ends well, or with one sentence."""
    before = sorted(Path().rglob("*"))
    code, out, err = call(arguments, stdin)
    assert code in (0, 2, 130), (arguments, err)
    if code == 2:
        assert err.strip(), arguments
        assert err.count("\n") == 1, (arguments, err)
        assert "Traceback" not in err
        assert len(err) < 1500, arguments
        assert sorted(Path().rglob("*")) == before
    return code, out, err


@hostile
@given(command=st.sampled_from(COMMANDS), arguments=lines_of_words)
def test_command_line(nothing_is_computed, command, arguments):
    code, _, _ = check([command, *arguments])
    TRIED[f"command lines, {'refused' if code == 2 else 'accepted'}"] += 1


@hostile
@given(arguments=lines_of_words)
def test_command_line_without_a_command(arguments, nothing_is_computed):
    check(arguments)
    TRIED["command lines without a command"] += 1


# Of each option values in its bounds, so that the rules between them are reached.
def valid_value(option):
    if option.choices:
        return st.sampled_from(option.choices)
    if option.kind is bool:
        return st.just(True)
    if option.kind is int:
        return st.one_of(st.integers(int(option.low), 40), st.integers(int(option.low), int(option.high)))
    return st.floats(option.low, min(option.high, 1e9)) if option.kind is float else st.just("full/file")


options = st.dictionaries(st.sampled_from(list(OPTIONS)), st.none(), max_size=7).flatmap(
    lambda names: st.fixed_dictionaries({name: valid_value(OPTIONS[name]) for name in names})
)


@hostile
@given(mode=st.sampled_from(list(EXPERIMENTS)), values=options)
def test_options_within_their_bounds(mode, values):
    arguments = ["train", "--mode", mode, "--print-config"]
    for name, value in values.items():
        arguments += [OPTIONS[name].flag] if value is True else [OPTIONS[name].flag, str(value)]
    code, out, _ = check(arguments)
    if code == 0:
        Path("again.yaml").write_text(out)
        assert check(["train", "--config", "again.yaml", "--print-config"])[1] == out
        Path("again.yaml").unlink()
    TRIED[f"options, {'refused' if code == 2 else 'accepted'}"] += 1


small = {
    "length": st.integers(1, 12), "vocabulary_size": st.integers(2, 30), "lag": st.integers(0, 9),
    "window": st.integers(1, 9), "batch_size": st.integers(1, 9), "lanes": st.integers(1, 9),
    "chunk": st.integers(1, 9), "hidden_size": st.integers(1, 9), "layers": st.integers(1, 3),
    "reset_every": st.integers(1, 9), "stagger": st.just(True), "missing": st.floats(0, 0.99),
    "model": st.sampled_from(["lstm", "gru", "rnn", "mlp", "memoryless"]), "mlp_window": st.integers(1, 9),
    "encoding": st.sampled_from(["one-hot", "digits"]), "base": st.integers(2, 12),
    "init": st.sampled_from(["torch", "keras"]), "learning_rate": st.floats(1e-12, 1e3),
    "clip_norm": st.floats(1e-12, 1e12), "carry": st.sampled_from(["keep", "reset"]),
    "cut": st.sampled_from(["chunk", "sequence"]), "log_every": st.integers(1, 5), "seed": st.integers(0, 2**63 - 1),
    "checkpoint_every": st.integers(1, 4), "validate_every": st.integers(1, 5),
}  # fmt: skip


def small_values(mode):
    names = st.lists(st.sampled_from([name for name in small if name in EXPERIMENTS[mode].options]), max_size=5)
    values = names.flatmap(lambda names: st.fixed_dictionaries({name: small[name] for name in names}))
    return st.tuples(st.just(mode), values)


@settings(hostile, max_examples=EXAMPLES // 20)
@given(chosen=st.sampled_from(list(EXPERIMENTS)).flatmap(small_values))
def test_what_is_accepted_trains(monkeypatch, chosen):
    """Small ones, to the end: each finishes, its accuracy below its ceiling and its files whole."""
    mode, values = chosen
    arguments = ["train", "--mode", mode, "--updates", "4", "--run-dir", "trained", "--no-progress"]
    for name, value in values.items():
        arguments += [OPTIONS[name].flag] if value is True else [OPTIONS[name].flag, str(value)]
    code, _, err = check(arguments)
    if code == 0:
        result = json.loads(Path("trained/result.json").read_text())
        assert result["updates"] == 4, err
        assert result["accuracy"] is None or 0 <= result["accuracy"] <= 1
    shutil.rmtree("trained", ignore_errors=True)
    TRIED[f"trainings, {'refused' if code == 2 else 'done'}"] += 1


scalars = st.one_of(numbers, texts, st.sampled_from(["[1, 2]", "{a: 1}", "!!python/object/apply:os.mkdir [ran]", "~"]))
yaml_lines = st.lists(
    st.tuples(st.one_of(st.sampled_from(["mode", *OPTIONS]), texts), scalars).map(lambda pair: f"{pair[0]}: {pair[1]}"),
    max_size=5,
).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
bombs = st.sampled_from(
    [
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 122)),
        b"lag: " + b"[" * 20_000,
        b"lag: " + b"9" * 20_000,
        b"lag: 0x" + b"f" * 20_000,
        b"mode: !!python/object/apply:os.mkdir [ran]",
        b"? " * 5000,
        b"lag: 2023-99-99",
        b"\xff\xfe\0l",
        b"<<: *x",
        b"lag: 1\nlag: 2\n---\nlag: 3",
    ]
)


@hostile
@given(content=st.one_of(st.binary(max_size=200), yaml_lines, bombs))
def test_yaml(content):
    Path("file.yaml").write_bytes(content)
    code, _, _ = check(["train", "--config", "file.yaml", "--print-config"])
    assert not Path("ran").exists()
    TRIED[f"YAML files, {'refused' if code == 2 else 'accepted'}"] += 1


tables = st.lists(
    st.lists(st.one_of(st.integers(0, 50).map(str), texts), min_size=1, max_size=3).map(",".join), max_size=12
).map(lambda rows: "\n".join(["x,y,z", *rows]).encode("utf-8", "replace"))
number_files = st.lists(st.one_of(st.integers(0, 9).map(str), st.sampled_from(["\n", "", "-1", "1.5", "4294967296"])))
number_texts = number_files.map(lambda entries: " ".join(entries).encode())


@hostile
@given(content=st.one_of(st.binary(max_size=300), number_texts, tables), column=st.sampled_from([None, "x", "q", ""]))
def test_data_files(content, column):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            found = open_numbers(path, column=column)
            assert found.largest >= 0
            assert found.begins[0] == 0
    TRIED["data files"] += 1


@settings(hostile, max_examples=max(10, EXAMPLES // 5))
@given(content=st.one_of(st.binary(max_size=300), number_texts, tables), mode=st.sampled_from(["lag", "aligned"]))
def test_data_files_from_the_command_line(nothing_is_computed, content, mode):
    Path("data.txt").write_bytes(content)
    check(["reach", "--mode", mode, "--data", "data.txt"])
    check(["predict", "--run", "none", "--file", "data.txt"])
    TRIED["data files from the command line"] += 1


entries = st.one_of(st.integers(0, 6).map(str), st.sampled_from(["reset", "7", "-1", "0 1", "", "x", "٣", "9" * 5000]))
stream_lines = st.lists(entries, max_size=30).map(lambda lines: "\n".join(lines).encode())


@hostile
@given(data=st.one_of(st.binary(max_size=300), stream_lines))
def test_stream(finished, data):
    code, out, err = call(["stream", "--run", str(finished.path)], data)
    assert code == 0
    assert "Traceback" not in err
    assert all(line.isdigit() and int(line) < 7 for line in out.splitlines())
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="replace").read().split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    silent = sum(line.split() == ["reset"] for line in lines)
    assert len(out.splitlines()) + err.count("\n") + silent == len(lines)
    TRIED["streams"] += 1


@hostile
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 4))
def test_checkpoints_with_a_digest_that_fits(finished, seed, changes):
    """Bytes changed in the pickle of a checkpoint by somebody who knows the digest."""
    choose = random.Random(seed)
    copy = RunDirectory(Path("copy"))
    copy.create()
    copy.config.write_bytes(finished.config.read_bytes())
    buffer = io.BytesIO()
    with zipfile.ZipFile(finished.checkpoint) as archive, zipfile.ZipFile(buffer, "w") as changed:
        for name in archive.namelist():
            data = bytearray(archive.read(name))
            if name.endswith("data.pkl"):
                for _ in range(changes):
                    data[choose.randrange(len(data))] = choose.randrange(256)
            changed.writestr(name, bytes(data))
    copy.checkpoint.write_bytes(with_digest(buffer.getvalue()))
    with contextlib.suppress(CheckpointError):
        assert isinstance(read_checkpoint(copy.checkpoint), dict)
        TRIED["checkpoints, read"] += 1
    with contextlib.suppress(UserError):
        load_model(copy)
    TRIED["checkpoints"] += 1


@hostile
@given(name=st.sampled_from(["config.yaml", "result.json", "metrics.csv"]), content=st.binary(max_size=200))
def test_files_of_a_run(finished, name, content):
    copy = RunDirectory(Path("copied"))
    shutil.copytree(finished.path, copy.path, dirs_exist_ok=True)
    (copy.path / name).write_bytes(content)
    with contextlib.suppress(UserError):
        read_finished(copy, copy.read_config())
    check(["train", "--updates", "4", "--run-dir", "copied", "--resume", "auto", "--print-config"])
    TRIED["files of a run"] += 1


ENDLESS = "/proc/self/pagemap"  # a regular file that says it is empty, and holds more than any memory


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/full", "pipe", ".", "none", "/dev/stdin/x", ENDLESS])
@pytest.mark.parametrize(
    "command",
    ["train --config", "train --data", "train --run-dir new --resume", "evaluate --run", "predict --run {run} --file"],
)
def test_places_that_never_end(finished, command, place):
    """Devices, a pipe that nobody writes to, and a file that never ends."""
    os.mkfifo("pipe")
    assert check([*command.format(run=finished.path).split(), place])[0] == 2


def test_how_much_was_tried():
    """The last test here: says it with -s."""
    print(*(f"{number:>8,} {name}" for name, number in sorted(TRIED.items())), sep="\n")
