"""Files of a run say their format, a checkpoint is read once, a user's data are opened once."""

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from support import runs

from echo_torch import RunDirectory, train
from echo_torch.cli import main
from echo_torch.data import own_symbols
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import replace
from echo_torch.files import open_regular
from echo_torch.lab.finished import load_model
from echo_torch.lab.many import train_many
from echo_torch.training import checkpoints
from echo_torch.training.checkpoints import read_checkpoint, write_checkpoint

short = partial(runs.short, updates=12, checkpoint_every=4)


@pytest.fixture
def opened(monkeypatch):
    """How often each checkpoint was opened."""
    names = []

    def counted(path):
        names.append(Path(path).name)
        return open_regular(path)

    monkeypatch.setattr(checkpoints, "open_regular", counted)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("is_explicit", [False, True])
def test_a_resume_reads_its_checkpoint_once(tmp_path, opened, is_explicit):
    run = RunDirectory(tmp_path / "run")
    train(short(), run)
    opened.clear()
    train(replace(short(), updates=20), run, resume=run.checkpoint if is_explicit else "auto")
    assert opened.count("last.ckpt") == 1
    assert opened.count("previous.ckpt") == 0


def test_data_of_ones_own_are_opened_once(tmp_path, monkeypatch):
    (tmp_path / "numbers.txt").write_text(" ".join(str(number % 5) for number in range(400)))
    read, paths = own_symbols.read_rows, []

    def counted(path, **options):
        paths.append(path)
        return read(path, **options)

    monkeypatch.setattr(own_symbols, "read_rows", counted)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "numbers.txt", "--updates", "4", "--run-dir", "run", "--quiet"]) == 0
    assert paths == ["numbers.txt"]


def test_files_say_their_format(tmp_path):
    run = RunDirectory(tmp_path / "run")
    train(short(), run)
    assert yaml.safe_load(run.config.read_text())["format"] == 1
    assert run.read_result()["format"] == 1
    assert read_checkpoint(run.checkpoint)["format"] == 1


@pytest.mark.parametrize("found", [None, 2])
def test_files_of_another_format_are_refused_in_a_sentence(tmp_path, capsys, found):
    configuration, folder = short(), tmp_path / "runs"
    run = RunDirectory(folder / "one")
    train(configuration, run)

    def change(values):
        values.pop("format")
        return values if found is None else {"format": found, **values}

    checkpoint = read_checkpoint(run.checkpoint)
    write_checkpoint(change(dict(checkpoint)), run.checkpoint)
    for resume in ("auto", run.checkpoint):
        with pytest.raises(UserError, match="of another version of this program"):
            train(replace(configuration, updates=20), run, resume=resume)
    with pytest.raises(UserError, match="of another version of this program"):
        load_model(run)
    write_checkpoint(checkpoint, run.checkpoint)

    result = run.read_result()
    run.result.write_text(json.dumps(change(dict(result))))
    with pytest.raises(UserError, match="of another version of this program"):
        train_many({"one": configuration}, folder)

    run.config.write_text(yaml.safe_dump(change(yaml.safe_load(run.config.read_text()))))
    for command in ("evaluate", "predict", "stream"):
        assert main([command, "--run", str(run.path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "of another version of this program" in error
