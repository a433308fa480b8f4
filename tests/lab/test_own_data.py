"""A user's own numbers, from the file to the chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processes import files

from echo_torch import RunDirectory, configure, train
from echo_torch.cli import main
from echo_torch.data.own_symbols import OwnSymbols, open_numbers
from echo_torch.errors import UserError
from echo_torch.lab.plan import Plan

MODES = ("echo", "stateful", "lag", "masked", "whole", "sequence", "aligned")


def write(path, groups):
    path.write_text("who,x\n" + "".join(f"{who},{x}\n" for who, group in enumerate(groups) for x in group))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "numbers.csv"
    draw = np.random.default_rng(0)
    write(path, [draw.integers(0, 7, length).tolist() for length in (300, 41, 500, 159)])
    return path


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), min_size=1, max_size=5), st.integers(1, 12))
def test_pieces_hold_every_number_once_and_stay_in_their_series(tmp_path_factory, groups, piece_length):
    path = tmp_path_factory.mktemp("own") / "numbers.csv"
    write(path, groups)
    data = open_numbers(path, column="x", series="who")
    numbers = [number for group in groups for number in group]
    edges = set(np.cumsum([len(group) for group in groups]).tolist())
    read = []
    for split in ("training", "evaluation"):
        source = OwnSymbols(data, split, piece_length)
        for piece in range(source.num_pieces):
            begin, end = source.bounds(np.array(piece))
            assert not any(begin < edge < end for edge in edges)
            found = source(np.array(piece), np.arange(-1, piece_length + 1))
            assert found[0] == found[-1] == -1
            read += found[found >= 0].tolist()
    assert read == numbers


@pytest.mark.parametrize("mode", MODES)
def test_targets_are_the_echo_and_held_out_numbers_are_asked_once(table, mode):
    c = configure(mode, data=str(table), column="x", series="who", vocabulary_size=7)
    data = open_numbers(table, column="x", series="who")
    for stream in (Plan(c).training(), Plan(c).evaluation()):
        source = stream.source
        asked = []
        for _, chunk in zip(range(60), stream, strict=False):
            for lane, column in (chunk.targets >= 0).nonzero().tolist():
                begin, end = source.bounds(chunk.sequence[lane].numpy() % source.num_pieces)
                place = int(begin) + int(chunk.step[lane, column]) - c.reading.lag
                assert begin <= place < end
                assert int(chunk.targets[lane, column]) == data.numbers[place]
                asked.append(place)
    assert len(set(asked)) == len(asked)  # of the evaluation
    assert min(asked) >= 900
    assert Plan(c).reach().ceiling is None


def test_no_held_out_number_is_asked_twice_where_lanes_do_not_divide(table):
    """Twelve pieces on five lanes: three lanes have nothing to read in the third round."""
    c = configure("aligned", data=str(table), column="x", vocabulary_size=7, lanes=5, reset_every=9)
    asked = sum(int((chunk.targets >= 0).sum()) for chunk in Plan(c).evaluation())
    assert asked == 100 - 12


def test_it_is_learned(tmp_path, table):
    c = configure("aligned", data=str(table), column="x", vocabulary_size=7, lanes=8, updates=400, accelerator="cpu")
    result = train(c, RunDirectory(tmp_path / "run"))
    assert result["accuracy"] > 0.97
    assert result["ceiling"] is None
    assert result["targets"] == 100 - 8  # one of each lane's numbers has no answer before it


def test_the_command_line_infers_the_vocabulary(table, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--data", str(table), "--column", "x", "--mode", "aligned"]
    assert main(["train", *options, "--print-config"]) == 0
    assert "vocabulary_size: 7\n" in capfd.readouterr().out
    assert main(["train", *options, "--lanes", "4", "--updates", "20", "--run-dir", "run", "--quiet"]) == 0
    assert main(["evaluate", "--run", "run"]) == 0
    assert "fresh targets" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "none"], ["Cannot read 'none'"]),
        (["--data", "empty"], ["holds no number"]),
        (["--data", "short"], ["too short", "numbers, and 6 are needed"]),
        (["--data", "words"], ["'words' line 2", "Got 'two'"]),
        (
            ["--data", "short", "--vocabulary-size", "3"],
            ["'short' line 4", "below 3", "largest is 9", "Make --vocabulary-size at least"],
        ),
        (["--column", "x"], ["--column has an effect only together with --data"]),
        (["--data", "short", "--series", "x"], ["--series has an effect only together with --column"]),
    ],
)
def test_bad_data(tmp_path, monkeypatch, capfd, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("1\n2\n0\n9\n1\n")
    (tmp_path / "words").write_text("1\ntwo\n")
    assert main(["train", "--quiet", "--mode", "lag", *options]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not (tmp_path / "runs").exists()


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "numbers"
    path.write_text("1 2 3")
    assert open_numbers(path).numbers.tolist() == [1, 2, 3]
    path.write_text("4 5 6 7")
    assert open_numbers(path).numbers.tolist() == [4, 5, 6, 7]
    with pytest.raises(UserError, match="Cannot read"):
        open_numbers(tmp_path / "none")


def test_a_run_goes_on_with_its_own_data_only(table, tmp_path):
    """Exactly, and not at all where the file has changed."""
    path = tmp_path / "numbers.csv"
    path.write_bytes(table.read_bytes())
    options = {"data": str(path), "column": "x", "vocabulary_size": 10, "accelerator": "cpu", "checkpoint_every": 5}
    run, whole = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "whole")
    train(configure("aligned", updates=7, **options), run)
    train(configure("aligned", updates=12, **options), run, resume="auto")
    train(configure("aligned", updates=12, **options), whole)
    assert files(run.path) == files(whole.path)
    path.write_bytes(path.read_bytes().rsplit(b"\n", 2)[0] + b"\n")
    with pytest.raises(UserError, match="has changed since"):
        train(configure("aligned", updates=20, **options), run, resume="auto")
    assert files(run.path) == files(whole.path)
