"""Files that survive: damage is found, the older generation used, and nothing in a file is run."""

import hashlib
import os
import pickle
import random
import resource
import shutil
import struct
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from support.processes import finish, start, wait_until
from support.runs import copied

from echo_torch import RunDirectory, configure, train
from echo_torch.cli import main
from echo_torch.errors import UserError
from echo_torch.files import WriteError, whole_file
from echo_torch.lab.finished import load_model
from echo_torch.training.checkpoints import (
    PREVIOUS,
    CheckpointError,
    CheckpointWarning,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from echo_torch.training.metrics_file import MetricsFile
from echo_torch.training.saving import WholeCheckpoints

SMALL = {"lag": {"vocabulary_size": 5, "hidden_size": 3, "updates": 12, "checkpoint_every": 5, "accelerator": "cpu"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished run with two generations of checkpoints."""
    run = RunDirectory(tmp_path_factory.mktemp("finished") / "run")
    train(configure("lag", **SMALL["lag"]), run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    return copied(finished, tmp_path / "run")


def test_two_generations(tmp_path):
    path = tmp_path / "last.ckpt"
    for number in range(3):
        write_checkpoint({"global_step": number, "number": number, "weights": torch.full((2,), float(number))}, path)
    assert read_checkpoint(path)["number"] == 2
    assert read_checkpoint(path.with_name(PREVIOUS))["number"] == 1
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", PREVIOUS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_checkpoint(path).path == path
        path.unlink()  # what a kill between two renames leaves
        assert newest_checkpoint(path).path == path.with_name(PREVIOUS)
    assert newest_checkpoint(tmp_path / "none" / "last.ckpt") is None


def test_other_readers_do_not_mind_the_digest(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint({"weights": torch.ones(2)}, path)
    assert torch.load(path, weights_only=True)["weights"].tolist() == [1, 1]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


def check_damage(run, damages):
    """Every damage of the latest checkpoint is found, and the one before is used."""
    whole = run.checkpoint.read_bytes()
    older = run.checkpoint.with_name(PREVIOUS)
    count = 0
    for damaged in damages(whole):
        assert damaged != whole
        run.checkpoint.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="its digest does not fit"):
            read_checkpoint(run.checkpoint)
        with pytest.warns(CheckpointWarning, match=r"cut or altered. The one before is used: .*previous.ckpt"):
            assert newest_checkpoint(run.checkpoint).path == older
        count += 1
    run.checkpoint.write_bytes(whole)
    return count


def flipped(data, offset, bit):
    return data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]


def test_cut_or_altered_anywhere(run):
    """A sample of the offsets, more of them at both ends; the whole is a slow test."""
    size, choose = run.checkpoint.stat().st_size, random.Random(1)
    offsets = {*range(20), *range(size - 60, size), *(choose.randrange(size) for _ in range(70))}
    assert check_damage(run, lambda whole: (whole[:offset] for offset in offsets)) == len(offsets)
    assert check_damage(run, lambda whole: (flipped(whole, o, choose.randrange(8)) for o in offsets)) == len(offsets)
    assert check_damage(run, lambda whole: (whole + b"x", b"x" + whole, whole + whole, whole[: size // 2] * 2)) == 4


@pytest.mark.slow
def test_cut_or_altered_at_many_offsets(run):
    """At every one with DAMAGE_EVERY=1. The usual step is odd, so that every bit of a byte has its turn."""
    offsets = range(0, run.checkpoint.stat().st_size, int(os.environ.get("DAMAGE_EVERY", "75")))
    assert check_damage(run, lambda whole: (whole[:offset] for offset in offsets)) == len(offsets)
    assert check_damage(run, lambda whole: (flipped(whole, o, o % 8) for o in offsets)) == len(offsets)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1], lambda whole: flipped(whole, 500, 3), lambda whole: b""])
def test_a_run_goes_on_from_the_older_one(run, finished, capfd, damage):
    """As exactly as from the latest, and the damaged one never becomes the older one."""
    run.checkpoint.write_bytes(damage(run.checkpoint.read_bytes()))
    with pytest.warns(CheckpointWarning):
        assert load_model(run)[0] == load_model(finished)[0]
    options = [word for name, value in SMALL["lag"].items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["train", *options, "--run-dir", str(run.path), "--resume", "auto", "--no-progress"]) == 0
    shown = capfd.readouterr()
    assert "The run goes on after update 10 of 12." in shown.out
    assert shown.err.startswith("warning: The checkpoint ")
    assert shown.err.count("\n") == 1
    assert run.metrics.read_bytes() == finished.metrics.read_bytes()
    for path in (run.checkpoint, run.checkpoint.with_name(PREVIOUS)):
        read_checkpoint(path)


def test_without_a_good_one_it_is_refused(run, capfd):
    for path in (run.checkpoint, run.checkpoint.with_name(PREVIOUS)):
        path.write_bytes(path.read_bytes()[:-7])
    for arguments in (["evaluate", "--run"], ["predict", "1", "2", "--run"], ["stream", "--run"]):
        assert main([*arguments, str(run.path)]) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert "No other is left" in error


class Payload:
    """Unpickling it runs code."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


def with_digest(data):
    """A file whose digest fits, made by somebody who knows how."""
    if data[-22:-18] != b"PK\x05\x06":
        data += b"\0\0"
    body = data[:-2] + struct.pack("<H", 71)
    return body + b"sha256:" + hashlib.sha256(body).hexdigest().encode()


def crafted(folder, marker):
    """Files in every format that torch has ever written, a payload in each."""
    path = folder / "made"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        for place in (Payload(marker), {"state_dict": {"model.head.weight": Payload(marker)}}, [1, Payload(marker)]):
            torch.save(place, path, **options)
            yield path.read_bytes()
    yield pickle.dumps(Payload(marker))
    yield pickle.dumps({"state_dict": Payload(marker)}, protocol=0)
    torch.save({"weights": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(folder / "swapped", "w") as swapped:
        for name in archive.namelist():
            is_pickle = name.endswith("data.pkl")
            swapped.writestr(name, pickle.dumps(Payload(marker)) if is_pickle else archive.read(name))
    yield (folder / "swapped").read_bytes()


def test_payloads_are_refused_and_do_not_run(run, tmp_path, capfd):
    """Through every way that a checkpoint is read, with a digest that fits and without."""
    marker, older, count = tmp_path / "ran", run.checkpoint.with_name(PREVIOUS), 0
    options = [word for name, value in SMALL["lag"].items() for word in (f"--{name.replace('_', '-')}", str(value))]
    resume = ["train", *options, "--run-dir", str(run.path), "--resume"]
    for data in crafted(tmp_path, marker):
        for file in (data, with_digest(data)):
            run.checkpoint.write_bytes(file)
            older.write_bytes(file)
            with pytest.raises(CheckpointError):
                read_checkpoint(run.checkpoint)
            with pytest.raises(CheckpointError):
                WholeCheckpoints().load_checkpoint(run.checkpoint, weights_only=False)
            with pytest.raises(UserError):
                load_model(run)
            for arguments in ([*resume, "auto"], [*resume, str(older)], ["evaluate", "--run", str(run.path)]):
                assert main(arguments) == 2
                assert capfd.readouterr().err.count("\n") == 1
            assert not marker.exists()
            count += 1
    assert count == 18
    # The payload is a real one: an unsafe reader runs it.
    run.checkpoint.write_bytes(next(crafted(tmp_path, marker)))
    torch.load(run.checkpoint, weights_only=False)
    assert marker.is_dir()


@pytest.mark.parametrize("url", ["https://example.org/last.ckpt", "s3://bucket/last.ckpt", "file:///tmp/last.ckpt"])
def test_urls_are_refused(monkeypatch, url):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("it was fetched"))
    for read in (read_checkpoint, WholeCheckpoints().load_checkpoint):
        with pytest.raises(CheckpointError, match="a URL is never fetched"):
            read(url)


def test_a_full_disk(tmp_path):
    """/dev/full takes nothing: the row is refused and what was there stays."""
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    log = MetricsFile(tmp_path / "metrics.csv", drawn=lambda chunks: (chunks, chunks))
    with pytest.raises(WriteError, match=r"Cannot write '.*metrics.csv': No space left on device"):
        log.log_metrics({"loss": 1.0}, step=1)

    def write():
        with whole_file("/dev/full/file") as file:
            file.write(b"x")

    with pytest.raises(WriteError, match="Cannot write '/dev/full/file': Not a directory"):
        write()


def limit_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_file_size_limit_cuts_no_row(tmp_path):
    """The row that does not fit is taken back whole."""
    log = MetricsFile(tmp_path / "metrics.csv", drawn=lambda chunks: (chunks, chunks))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written, message = 0, ""
    try:
        limit_size(150)
        for step in range(1, 30):
            log.log_metrics({"loss": 1.5, "accuracy": 0.5, "targets": 5}, step=step)
            written += 1
    except WriteError as error:
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert "File too large" in message
    assert written >= 2
    assert lines[1:] == [f"{step},{step},{step},5,1.5,0.5" for step in range(1, written + 1)]


@pytest.mark.parametrize("size", [300, *[pytest.param(size, marks=pytest.mark.slow) for size in (1000, 100_000)]])
def test_a_run_that_cannot_write(tmp_path, monkeypatch, capfd, size):
    """The configuration, the metrics, the checkpoint: whichever fails first, one sentence and no half file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run, arguments = (
        RunDirectory(tmp_path / "run"),
        ["--updates", "300", "--log-every", "2", "--no-progress", "--quiet"],
    )
    try:
        limit_size(size)
        code = main(["train", *arguments, "--run-dir", str(run.path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capfd.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "Cannot write" in error
    assert "File too large" in error
    assert not [path for path in run.path.rglob("*") if "writing" in path.name]
    assert not run.checkpoint.exists()
    # With room again it goes on, or begins.
    assert main(["train", *arguments, "--run-dir", str(run.path), "--resume", "auto"]) == 0
    assert run.read_metrics()["update"] == list(range(2, 301, 2))


def test_a_failing_save_leaves_the_last_good_checkpoint(run, monkeypatch, capfd):
    options = [word for name, value in SMALL["lag"].items() for word in (f"--{name.replace('_', '-')}", str(value))]
    options[options.index("--updates") + 1] = "40"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    good = run.checkpoint.read_bytes()
    try:
        limit_size(len(good) // 2)
        assert main(["train", *options, "--run-dir", str(run.path), "--resume", "auto", "--quiet"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capfd.readouterr().err
    assert "The training has stopped; update 12 is saved in" in error
    assert run.checkpoint.read_bytes() == good
    assert load_model(run)[0].reading.updates == 40


def is_removed(directory):
    """Remove it, as far as nothing is written there meanwhile."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


@pytest.mark.slow
def test_the_directory_is_removed_under_the_run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    arguments = ["train", "--updates", 100_000, "--log-every", 5, "--run-dir", run.path, "--no-progress"]
    process = start(arguments, tmp_path)
    assert wait_until(run.metrics.exists, process)
    assert any(is_removed(run.path) for _ in range(1000)), "it is made anew and anew"
    assert finish(process) == 2
    error = (tmp_path / "err").read_text()
    assert error.count("\n") == 1
    assert "is not there any more: it was moved or removed. The training has stopped" in error
    assert not run.path.exists()


class Whatever:
    """Something that weights_only refuses to read."""


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    """A callback of somebody's own that saves objects would leave a run that cannot go on."""
    path = tmp_path / "last.ckpt"
    write_checkpoint({"a": OrderedDict(b=[torch.ones(2), (1, "x", None)])}, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"could not be read back.*it\['callbacks'\]\['Own'\] = Whatever"):
        write_checkpoint({"callbacks": {"Own": Whatever()}}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    write_checkpoint({"size": torch.Size([2])}, path)  # this can be
    assert read_checkpoint(path)["size"] == torch.Size([2])
