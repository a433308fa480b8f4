"""What was there stays there: finished runs, other runs, a person's files, rows that a checkpoint counts."""

import contextlib
import json
import os
import random
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
from support import runs
from support.processes import ENDINGS, files, finish, start, wait_until
from support.runs import StopError, at_update, copied, everything, stop_at

from echo_torch import RunDirectory, train
from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.configuration import replace
from echo_torch.files import MovedError, Place
from echo_torch.lab import locks
from echo_torch.lab.many import train_many
from echo_torch.training.checkpoints import CheckpointWarning

short = partial(runs.short, vocabulary_size=10)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("finished") / "run")
    train(short(updates=18), run, curve=True)
    return run


@pytest.fixture
def finished(finished_once, tmp_path):
    """A finished run of 18 updates, its last row that of a rest."""
    return copied(finished_once, tmp_path / "run")


# Other runs


@pytest.mark.parametrize("held", ["config", "checkpoint", "result"])
def test_a_directory_that_holds_another_run_is_not_gone_on_in(finished, tmp_path, held):
    other = RunDirectory(tmp_path / "other")
    train(short(updates=12, lag=2), other)
    if held != "config":
        finished.config.unlink()
    if held == "result":
        shutil.rmtree(finished.checkpoint.parent)
    before = everything(finished.path)
    with pytest.raises(UserError, match="lag` was 1 and is 2" if held != "result" else "must be new or empty"):
        train(short(updates=18, lag=2), finished, resume=other.checkpoint)
    assert everything(finished.path) == before


def test_a_shorter_run_does_not_replace_a_longer_one(finished, tmp_path):
    other = RunDirectory(tmp_path / "other")
    train(short(updates=12), other)
    before = everything(finished.path)
    with pytest.raises(UserError, match="updates` was 18 and is 12"):
        train(short(updates=12), finished, resume=other.checkpoint)
    assert everything(finished.path) == before


# Finished runs


def test_a_finished_run_without_checkpoints_is_kept(finished):
    shutil.rmtree(finished.checkpoint.parent)
    before = everything(finished.path)
    for updates in (18, 30):
        with pytest.raises(UserError, match=r"finished but its checkpoints are gone.*another `run`"):
            train(short(updates=updates), finished, resume="auto")
        assert everything(finished.path) == before


def test_a_grown_run_that_is_given_up_can_be_ended_where_it_was(finished, monkeypatch):
    """Its result stays until there is a new one, and the row of its last updates is written again."""
    before = everything(finished.path)
    with monkeypatch.context() as patch:
        stop_at(patch, 20)
        with pytest.raises(StopError):
            train(short(updates=400), finished, resume="auto")
    assert json.loads(finished.result.read_text())["updates"] == 18
    assert finished.curve.exists()
    assert finished.last_update() == 20
    train(short(updates=18), finished, resume="auto", curve=True)
    after, times = everything(finished.path), {Path("result.json"), Path("checkpoints/last.ckpt")}
    assert {path: data for path, data in after.items() if path not in times} == {
        path: data for path, data in before.items() if path not in times
    }
    assert files(finished.path)[1]["weights_sha256"] == json.loads(before[Path("result.json")])["weights_sha256"]


def test_the_picture_of_a_shorter_training_does_not_stay(finished):
    train(short(updates=20), finished, resume="auto")
    assert not finished.curve.exists()


# Rows that a checkpoint counts


def test_where_rows_are_lost_the_older_checkpoint_is_used(tmp_path):
    configuration = short(updates=24)
    run, whole = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "whole")
    train(configuration, whole)
    train(configuration, run)
    os.truncate(run.metrics, run.metrics.stat().st_size - 1)
    with pytest.warns(CheckpointWarning, match=r"does not hold the rows up to update 24.*The one before is used"):
        train(configuration, run, resume="auto")
    assert files(run.path) == files(whole.path)


@pytest.mark.slow
@pytest.mark.parametrize("names_are_kept", [True, False])
@pytest.mark.parametrize("cut_after", [1, 2, 3, 4])
def test_a_power_cut(tmp_path, monkeypatch, names_are_kept, cut_after):
    """Only what was waited for is on the disk; of the rest the names, as ext4 has it, or not even those."""
    configuration = short(updates=24, validate_every=12)
    run, whole = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "whole")
    train(configuration, whole)
    disk = Disk(monkeypatch, tmp_path)
    stop_at(monkeypatch, 6 * cut_after + (1 if cut_after < 4 else -1))
    with disk, pytest.raises(StopError):
        train(configuration, run)
    monkeypatch.undo()
    shutil.rmtree(run.path)
    disk.restore(names_are_kept)
    with contextlib.suppress(FileNotFoundError):
        assert run.checkpoint.stat().st_size > 0
    said = []
    train(configuration, run, resume="auto", say=said.append)
    assert f"after update {min(6 * cut_after, 18)} of 24" in said[0]
    assert files(run.path) == files(whole.path)


class Disk:
    """What would be left of files after a power cut: contents as of the last fsync, names as of that of the directory.

    The file system may have put names on the disk that nobody waited for, their contents empty.
    """

    def __init__(self, monkeypatch, root):
        self._patch, self._root, self._contents, self._names = monkeypatch, root, {}, {}

    def __enter__(self):
        fsync = os.fsync

        def watched(handle):
            fsync(handle)
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_dir():
                self._names[path] = names_in(path)
            else:
                self._contents[os.fstat(handle).st_ino] = path.read_bytes()

        self._patch.setattr(os, "fsync", watched)

    def __exit__(self, *error):
        folders = [self._root, *(path for path in self._root.rglob("*") if path.is_dir())]
        self._all_names = {folder: names_in(folder) for folder in folders}
        self._folders = {folder.stat().st_ino for folder in folders}

    def restore(self, names_are_kept):
        self._fill(self._root, self._all_names if names_are_kept else self._names)

    def _fill(self, folder, names):
        for name, number in names.get(folder, {}).items():
            path = folder / name
            if number in self._folders:
                path.mkdir(exist_ok=True)
                self._fill(path, names)
            elif not path.exists():
                path.write_bytes(self._contents.get(number, b""))


def names_in(folder):
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


# A directory that moves


@pytest.mark.parametrize("is_replaced", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_directory_renamed_under_a_run_is_noticed(tmp_path, monkeypatch, is_replaced):
    run, moved = RunDirectory(tmp_path / "run"), tmp_path / "moved"

    def moving(module):
        run.path.rename(moved)
        if is_replaced:
            run.create()
            run.metrics.write_text("another run's\n")

    at_update(monkeypatch, 9, before=moving)
    with pytest.raises(UserError) as error:
        train(short(), run)
    monkeypatch.undo()
    what = "is another directory now" if is_replaced else "is not there any more"
    assert what in str(error.value)
    assert f"that is {str(moved)!r} now" in str(error.value)
    if is_replaced:
        assert everything(run.path) == {Path("metrics.csv"): b"another run's\n"}
    else:
        assert not run.path.exists()
    train(short(), RunDirectory(moved), resume="auto")
    train(short(), RunDirectory(tmp_path / "whole"))
    assert files(moved) == files(tmp_path / "whole")


def test_a_place_is_its_directory_not_its_name(tmp_path):
    (tmp_path / "a").mkdir()
    place = Place.of(tmp_path / "a")
    place.check()
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(MovedError, match="is not there any more: it was moved or removed"):
        place.check()


# Sweeps


def tiny(seed=1, **options):
    return short("aligned", updates=20, log_every=5, seed=seed, **options)


def no_process(monkeypatch):
    def fail(*arguments, **options):
        pytest.fail("it began")

    monkeypatch.setattr("echo_torch.lab.many._train", fail)


def test_a_sweep_removes_nothing_that_it_did_not_make(tmp_path, monkeypatch):
    """A person's own unfinished run under the name of one of its runs, and notes; and then nothing is begun."""
    run = RunDirectory(tmp_path / "one")
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        with pytest.raises(StopError):
            train(tiny(), run)
    (run.path / "notes.txt").write_text("mine")
    before = everything(tmp_path)
    no_process(monkeypatch)
    with pytest.raises(UserError, match=r"one' holds files that no sweep made, such as .*none of them is removed"):
        train_many({"other": tiny(2), "one": tiny()}, tmp_path)
    assert everything(tmp_path) == before


def begin(run, configuration):
    from echo_torch.lab.plan import Plan
    from echo_torch.lab.sweep_runs import begin

    begin(run, Plan(configuration))


def test_a_run_of_a_sweep_goes_on_or_begins_anew(tmp_path, monkeypatch):
    run, whole = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "whole")
    begin(run, tiny())
    stop_at(monkeypatch, 8)
    with pytest.raises(StopError):
        train(tiny(), run, audit="count", resume="auto")
    left = everything(run.path)
    begin(run, tiny())
    assert everything(run.path) == left  # it can go on
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"cannot go on, and 'notes\.txt' there was not made by a sweep"):
        begin(run, tiny(lag=2))
    assert everything(run.path) == {**left, Path("notes.txt"): b"mine"}
    begin(run, tiny())  # notes are no hurdle where nothing need be removed
    (run.path / "notes.txt").unlink()
    begin(run, tiny(lag=2))
    assert {path.name for path in run.path.rglob("*") if path.is_file()} == {"config.yaml", "sweep.yaml"}
    monkeypatch.undo()
    train(tiny(lag=2), run, resume="auto")
    train(tiny(lag=2), whole)
    assert {**files(run.path)[0], "sweep.yaml": None} == {**files(whole.path)[0], "sweep.yaml": None}


def test_a_run_that_a_person_took_over_is_not_the_sweeps_any_more(tmp_path):
    run = RunDirectory(tmp_path / "one")
    begin(run, tiny())
    train(replace(tiny(), updates=30), run, resume="auto")
    run.result.unlink()
    with pytest.raises(UserError, match="holds files that no sweep made"):
        begin(run, tiny(lag=2))


def test_one_sweep_at_a_time_works_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS", 0.1)
    no_process(monkeypatch)
    with locks.locked(tmp_path), pytest.raises(UserError, match=r"Another sweep works in .*another `run`"):
        train_many({"one": tiny()}, tmp_path)
    assert list(tmp_path.iterdir()) == []


# Locks, names


def test_a_child_does_not_keep_the_lock(tmp_path):
    """As a loader process, which lives on a little when the one that trains is killed."""
    reader, writer = os.pipe()
    with locks.locked(tmp_path) as is_locked:
        assert is_locked
        child = os.fork()
        if child == 0:
            os.read(reader, 1)
            os._exit(0)
    with locks.locked(tmp_path) as is_locked:
        assert is_locked
    os.write(writer, b"x")
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)


def written(path):
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("during", ["updates", "resume"])
def test_ended_in_every_way_and_gone_on_with_at_once(tmp_path, during):
    """After a checkpoint, or while it still finds out where to go on. Its loader processes live on for a moment."""
    command = ["train", "--updates", 2000, "--log-every", 5, "--workers", 2, "--checkpoint-every", 20, "--no-progress"]
    run, whole, moments = RunDirectory(tmp_path / "run"), tmp_path / "whole", random.Random(time.time_ns())
    command += ["--vocabulary-size", 10, "--hidden-size", 8]
    assert finish(start([*command, "--run-dir", whole], tmp_path)) == 0
    output = tmp_path / "out"
    again = [*command, "--run-dir", run.path, "--resume", "auto"]
    process = start(again, tmp_path)
    assert wait_until(run.checkpoint.exists, process)
    # Each way once; with KILLS=7 or more all of them in both.
    ways = dict(list(ENDINGS.items())[:4] if during == "updates" else list(ENDINGS.items())[4:])
    if int(os.environ.get("KILLS", "0")) >= len(ENDINGS):
        ways = ENDINGS
    found = []
    for end, codes in ways.values():
        end(process)
        found.append(finish(process))
        assert found[-1] in {0, *codes}  # it may have come to its end
        before, said, process = written(run.checkpoint), output.stat().st_size, start(again, tmp_path)
        if during == "updates":
            assert wait_until(lambda before=before: written(run.checkpoint) > before, process)
        else:
            assert wait_until(lambda said=said: output.stat().st_size > said, process)  # it listens to signals
            time.sleep(moments.uniform(0, 1.5))
    assert finish(process) == 0
    assert during == "resume" or found.count(0) < 3
    assert files(run.path) == files(whole)
    errors = (tmp_path / "err").read_text()
    # A loader process that is only beginning when its parent is killed has a traceback of multiprocessing's own.
    assert "echo_torch/" not in errors
    assert "Another process" not in errors


def test_what_an_earlier_training_left_behind_must_have_ended(finished, monkeypatch):
    """The process that wrote for one of several, whose parent was killed: it is waited for, and not for ever."""
    monkeypatch.setattr(locks, "SECONDS", 0.1)
    before = everything(finished.path)
    with locks.locked(finished.checkpoint.parent), pytest.raises(UserError, match="earlier training still writes into"):
        train(short(updates=30), finished, resume="auto")
    assert everything(finished.path) == before


def test_two_at_the_same_instant_take_different_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDirectory.taken("lag-seed1") as one, RunDirectory.taken("lag-seed1") as two:
        assert [str(run.path) for run in (one, two)] == ["runs/lag-seed1", "runs/lag-seed1-2"]
        two.metrics.touch()
    assert [str(path) for path in tmp_path.rglob("*")] == [
        str(tmp_path / name) for name in ("runs", "runs/lag-seed1-2", "runs/lag-seed1-2/metrics.csv")
    ]
    two.metrics.unlink()
    two.path.rmdir()
    Path("runs").rmdir()
    with pytest.raises(UserError), RunDirectory.taken("lag-seed1"):
        raise UserError("No.")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_named_as_what_it_is(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RuleError, match="which is a link to nothing"):
        RunDirectory(tmp_path / "link").check_free()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RuleError, match="which is no directory"):
        RunDirectory(tmp_path / "pipe").check_free()


# Data


def test_an_evaluation_refuses_data_that_changed(tmp_path, capsys):
    from echo_torch.cli import main

    data = tmp_path / "data.txt"
    data.write_text(" ".join(str(number % 7) for number in range(3000)))
    arguments = [
        "train",
        "--mode",
        "aligned",
        "--data",
        str(data),
        "--updates",
        "5",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert main([*arguments, "--quiet"]) == 0
    assert main(["evaluate", "--run", str(tmp_path / "run")]) == 0
    data.write_text(" ".join(str(number % 5) for number in range(3000)) + " 6")
    assert main(["evaluate", "--run", str(tmp_path / "run")]) == 2
    assert "has changed since" in capsys.readouterr().err
