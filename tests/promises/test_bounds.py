"""Whatever is read has bounds: no file, pipe or line can make a command wait for ever or take all memory."""

import errno
import io
import os
import resource
import signal
import sys
import tempfile
import tracemalloc

import pytest
import torch
from support.runs import copied

from echo_torch import RunDirectory, configure, train
from echo_torch.cli import main
from echo_torch.data import own_symbols
from echo_torch.data.own_symbols import MAX_LINE, read_rows
from echo_torch.errors import UserError
from echo_torch.files import WriteError, _NeverWaits, append_text, open_regular, read_bytes
from echo_torch.lab.results import read_finished
from echo_torch.lab.sweep_runs import check_may_begin
from echo_torch.lab.yaml_files import read_yaml
from echo_torch.training import checkpoints
from echo_torch.training.checkpoints import (
    CheckpointError,
    newest_checkpoint,
    read_checkpoint,
)

OPTIONS = {"vocabulary_size": 5, "hidden_size": 3, "updates": 12, "checkpoint_every": 5, "log_every": 4}
OPTIONS |= {"validate_every": 6, "accelerator": "cpu"}
RESUME = ["train", *(word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(value)))]
RESUME += ["--no-progress", "--quiet", "--resume", "auto", "--run-dir"]
HUGE = 100 * 2**30


@pytest.fixture(autouse=True)
def ends():
    """What waits for ever, or computes for minutes, is a failure."""

    def fail(*_):
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(40)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("bounds") / "run")
    train(configure("lag", **OPTIONS), run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    return copied(finished, tmp_path / "run")


def refused(arguments, capfd):
    """A command ends with code 2; return its one sentence."""
    assert main([str(word) for word in arguments]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    return error


# Some would hang a reader that makes everything before it looks at it.
BOMBS = {
    "merged mappings": b"a: &a {x: 1}\n"
    + b"".join(b"%c: &%c {<<: [%s]}\n" % (i, i, b",".join([b"*%c" % (i - 1)] * 9)) for i in range(98, 110)),
    "repeated lists": b"a: &a [x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 122)),
    "a number of base 60": b"lag: 1" + b":1" * 500_000,
    "a long number of base 60": b"lag: 1" + b":1" * 30_000,
    "a float of base 60": b"lag: 1" + b":1" * 2000 + b".5",
    "digits": b"lag: " + b"9" * 60_000,
    "digits of base 16": b"lag: 0x" + b"f" * 60_000,
    "digits of a time": b"lag: 2001-12-14t21:59:43." + b"1" * 60_000,
}
REPEATED = {  # begin, what is repeated, end
    "numbers of base 60": (b"", b"lag: 1:1\n", b""),
    "lists in a line": (b"lag: ", b"[", b""),
    "lists": (b"", b"[", b""),
    "mappings": (b"", b"{", b""),
    "mappings in a mapping": (b"lag: ", b"{a: ", b""),
    "keys": (b"", b"? ", b""),
    "anchors": (b"", b"a: &a 1\n", b""),
    "merged values": (b"a: &a 1\n", b"<<: *a\n", b""),
    "directives": (b"", b"%F b\n", b""),
    "documents": (b"a: 1\n", b"---\n", b""),
    "words": (b"", b"a", b""),
    "times": (b"", b"lag: 2001-12-14t21:59:43.10-05:00\n", b""),
    "tags": (b"", b"! ", b""),
    "escapes": (b'lag: "', b"\\x41", b'"'),
    "an open quote": (b'lag: "', b"b ", b""),
    "lines": (b"lag: |\n", b" x\n", b""),
    "names": (b"{", b"abcdefg,", b"}"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_no_yaml_takes_long(tmp_path, capfd, kind):
    (tmp_path / "file.yaml").write_bytes(BOMBS[kind])
    assert "file.yaml" in refused(["train", "--config", tmp_path / "file.yaml", "--print-config"], capfd)


@pytest.mark.parametrize("size", [2**13, pytest.param(2**16, marks=pytest.mark.slow)])
def test_no_yaml_that_repeats_itself_takes_long(tmp_path, capfd, size):
    for begin, unit, end in REPEATED.values():
        text = begin + unit * ((size - len(begin + end)) // len(unit)) + end
        (tmp_path / "file.yaml").write_bytes(text)
        refused(["train", "--config", tmp_path / "file.yaml", "--print-config"], capfd)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: 1\nlag: *x", r"line 2: every value must be written out, because .* Got '\*x'; write the value in its"),
        (b"<<: {a: 1}", "not valid YAML at line 1"),
        (b"lag: " + b"1" * 4097, "line 1: a name or a value must have at most 4,096 characters, because.*Got 4,097"),
        (b"a: 1\n" * 1001, "must hold fewer than 1,000 names"),
        (b"#" * (2**16 + 1), "larger than 65,536 bytes"),
        (b"lag: 1\n---\nlag: 2", "not valid YAML at line 2"),
        (b"lag: !!bool x", "not valid YAML at line 1"),
        (b"lag: !!timestamp x", "not valid YAML at line 1"),
        (b"lag: !!int ''", "not valid YAML at line 1"),
        (b"lag: !!set {a}", "not valid YAML at line 1"),
        (b"lag: 2001-12-14", "must give each name one value. Got a date for 'lag'"),
        (b"? [a]\n: 1", "must hold names and values.*Got list in the place of a name"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, message):
    (tmp_path / "file.yaml").write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_yaml(tmp_path / "file.yaml")


def test_yaml_is_read_as_ever(tmp_path):
    text = "\ufeff%YAML 1.1\n---\n{mode: 'lag', lag: 0x1F, rate: 1.5e-3, none: ~, \"x\": 1:30,\n y: 1e-3, z: !!str 5}\n"
    (tmp_path / "file.yaml").write_text(text)
    expected = {"mode": "lag", "lag": 31, "rate": 0.0015, "none": None, "x": 90, "y": "1e-3", "z": "5"}
    assert read_yaml(tmp_path / "file.yaml") == expected


def as_pipe(path):
    """Nobody writes to it and nobody reads from it."""
    path.unlink()
    os.mkfifo(path)


def test_pipes_in_the_place_of_what_a_run_wrote(run, finished, capfd):
    """Where it can do without, a run goes on and puts files in their place."""
    places = (run.result, run.config, run.checkpoint)
    for place in places:
        as_pipe(place)
    with pytest.raises(UserError, match=r"result.json' cannot be read \(it is no regular file\); move it away"):
        read_finished(run, configure("lag", **OPTIONS))
    assert "config.yaml': it is no regular file" in refused(["evaluate", "--run", run.path], capfd)
    assert main([*RESUME, str(run.path)]) == 0
    assert "last.ckpt' cannot be read: it is no regular file. The one before is used" in capfd.readouterr().err
    assert all(place.is_file() for place in places)
    assert run.config.read_bytes() == finished.config.read_bytes()


def test_a_pipe_in_the_place_of_what_a_sweep_left(run):
    (run.path / "sweep.yaml").write_bytes(run.config.read_bytes())
    check_may_begin(run)
    as_pipe(run.config)
    with pytest.raises(UserError, match="holds files that no sweep made"):
        check_may_begin(run)


@pytest.mark.parametrize("name", ["metrics", "validation"])
def test_a_pipe_in_the_place_of_a_table(run, capfd, name):
    table = getattr(run, name)
    as_pipe(table)
    assert f"{name}.csv' does not hold the rows" in refused([*RESUME, run.path], capfd)
    with pytest.raises(UserError, match=r"Cannot read .*: it is no regular file"):
        getattr(run, f"read_{name}")()
    with pytest.raises(WriteError, match=r"Cannot write .*: No such device or address"):
        append_text(table, "1,2\n")
    reader = os.open(table, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(WriteError, match=r"Cannot write .*: it is a pipe"):
        append_text(table, "1,2\n")
    os.close(reader)
    if name == "metrics":
        assert run.last_update() == 0
        with pytest.raises(UserError, match=r"The finished run .* is damaged; move it away to do it again"):
            read_finished(run, configure("lag", **OPTIONS))


def test_a_read_that_would_wait_is_an_error():
    """As of /proc/kmsg, which the system takes for a regular file."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with io.BufferedReader(_NeverWaits(reading)) as file:
        for read in (file.readline, lambda: file.read(10), file.read1, lambda: next(file)):
            with pytest.raises(OSError, match="it has no end"):
                read()
        os.write(writing, b"one\n")
        assert file.readline() == b"one\n"
    os.close(writing)


def test_how_many_bytes_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="it is larger than 4 bytes"):
        read_bytes(path, 4)
    with pytest.raises(OSError, match="it is larger than 1,000 bytes"):
        read_bytes("/proc/self/pagemap", 1000)  # its size is 0, and it has no end to speak of
    with pytest.raises(OSError, match="it is a directory"):
        open_regular(tmp_path)


def test_files_that_have_grown_to_100_gigabytes(run, finished, capfd):
    """The older checkpoint is used, and of the tables what was written by then."""
    left = (run.checkpoint, run.metrics, run.validation, run.result)
    for path in left:
        os.truncate(path, HUGE)
    for read in (run.read_metrics, run.read_validation):
        with pytest.raises(UserError, match=r"csv' was cut or altered: line \d is not one of the table"):
            read()
    with pytest.raises(UserError, match=r"result.json' cannot be read \(it is larger than"):
        run.read_result()
    assert run.last_update() == 0
    assert main([*RESUME, str(run.path)]) == 0
    assert "its digest does not fit, so it was cut or altered. The one before is used" in capfd.readouterr().err
    assert run.metrics.read_bytes() == finished.metrics.read_bytes()
    assert run.validation.read_bytes() == finished.validation.read_bytes()
    assert all(path.stat().st_size < 1e6 for path in left)


def test_a_checkpoint_that_does_not_fit_into_the_memory_is_not_given_up(run, monkeypatch):
    """It is as good as the older one, which would not fit either."""
    for part, name, found in (
        (os, "sysconf", lambda name: 100),
        (checkpoints.torch, "load", lambda *args, **kwargs: [None] * (sys.maxsize // 8)),
        (checkpoints.torch, "load", lambda *args, **kwargs: torch.empty(2**60)),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(part, name, found)
            for read in (read_checkpoint, newest_checkpoint):
                with pytest.raises(
                    CheckpointError, match=r"last.ckpt' does not fit into the memory that is free; free"
                ):
                    read(run.checkpoint)
    assert newest_checkpoint(run.checkpoint).path == run.checkpoint


def test_tables_that_are_none(run):
    whole = run.metrics.read_text()
    for text, line in (
        (whole[:-1], 4),
        (whole + "1,2\n", 5),
        (whole + "\0" * 100, 5),
        (whole.replace("0.", "x", 1), 2),
        (whole[:-1] + "1" * 5000 + "\n", 4),
        ("1" * 20_000, 1),
        (whole + ",,,,,,\n", 5),
    ):
        run.metrics.write_text(text)
        with pytest.raises(UserError, match=f"cut or altered: line {line} is not one of the table that a run writes"):
            run.read_metrics()
    run.metrics.write_text(whole + ",,,,,\n")
    assert str(run.read_metrics()["loss"][-1]) == "nan"


LONG = "1 " * (MAX_LINE // 2) + "\n"


@pytest.mark.parametrize("text", [LONG, "3\n" + LONG, "\0" * (2 * MAX_LINE), "1" * (2 * MAX_LINE)])
def test_a_line_that_does_not_end(run, tmp_path, capfd, text):
    (tmp_path / "numbers").write_text(text)
    number = 2 if text[0] == "3" else 1
    for arguments in (["reach", "--data"], ["predict", "--run", run.path, "--file"]):
        error = refused([*arguments, tmp_path / "numbers"], capfd)
        assert f"numbers' line {number}: a line must have at most 1,048,576 characters, because" in error
        assert "Got a longer one; write the numbers on more lines." in error


def test_a_row_that_does_not_end(tmp_path):
    """Of a table: in one line, or in lines without end of which none is long."""
    path = tmp_path / "numbers.csv"
    for text, line in (
        ("x\n1\n" + "1," * MAX_LINE, 3),
        ("x," * MAX_LINE, 1),
        ('x\n"' + '\n","' * (MAX_LINE // 4), r"\d{6}"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"line {line}: a line must have at most"):
            list(read_rows(path, column="x"))


def test_the_longest_line(tmp_path, monkeypatch):
    monkeypatch.setattr(own_symbols, "MAX_LINE", 10)
    path = tmp_path / "numbers"
    path.write_text("\ufeff" + "1 2 3 4 5\n" * 3)
    assert [row.symbol for row in read_rows(path)] == [*range(1, 6)] * 3


class Pipe(io.RawIOBase):
    """A file in parts, as a pipe brings it."""

    def __init__(self, *parts):
        self.parts = iter(parts)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = next(self.parts, b"")
        buffer[: len(part)] = part
        return len(part)


def stream(monkeypatch, run, *parts, encoding="utf-8"):
    """Give standard input in these parts to the command."""
    source = io.TextIOWrapper(io.BufferedReader(Pipe(*parts)), encoding=encoding)
    monkeypatch.setattr(sys, "stdin", source)
    return main(["stream", "--run", str(run.path)])


def test_a_line_of_a_stream_that_does_not_end(finished, monkeypatch, capfd):
    """It is complained of at once, never held, and the next one is answered."""
    clean = stream(monkeypatch, finished, b"3\n1\n"), *capfd.readouterr()
    tracemalloc.start()
    try:
        code = stream(monkeypatch, finished, b"3\n", *[b"1 " * 2**12] * 5000, b"\n1\n")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    shown = capfd.readouterr()
    assert (code, shown.out) == clean[:2]
    assert (
        shown.err
        == "line 2: the line must have at most 1,048,576 characters, because it is held in memory. Got a longer one.\n"
    )
    assert most < 20e6 < 5000 * 2**13


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_mark_of_utf8_before_a_stream(finished, monkeypatch, capfd, encoding):
    assert stream(monkeypatch, finished, b"\xef\xbb\xbf3\n1\n", encoding=encoding) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert shown.out.count("\n") == 2


def limit_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_temporary_folder_without_room(tmp_path, monkeypatch, capfd):
    """Numbers of 400,000 bytes where a file may have 100,000."""
    (tmp_path / "numbers").write_text("1 2 3 4\n" * 25_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        limit_size(100_000)
        error = refused(["reach", "--data", tmp_path / "numbers"], capfd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (
        f"cannot be kept in the temporary folder {str(tmp_path)!r}: File too large. Let TMPDIR name a folder" in error
    )


def test_no_temporary_folder(tmp_path, monkeypatch, capfd):
    def find():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    (tmp_path / "numbers").write_text("1 2 3 4\n" * 100)
    with monkeypatch.context() as changed:
        changed.setattr(tempfile, "tempdir", None)
        changed.setattr(tempfile, "_get_default_tempdir", find)
        error = refused(["reach", "--data", tmp_path / "numbers"], capfd)
    assert "cannot be kept in the temporary folder: No usable temporary directory found. Let TMPDIR name" in error
