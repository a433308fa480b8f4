import itertools
import os
import shlex
import subprocess
import sys
from dataclasses import replace as with_fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import EchoPredictor, OnlineEcho, RunDirectory, configure, train
from echo_torch.cli import main
from echo_torch.experiments.configuration import replace
from echo_torch.inference import predictor as inference
from echo_torch.inference.online import answer_lines
from echo_torch.inference.predictor import guess_ahead
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import most_likely
from echo_torch.training.evaluation import read

MODES = ("echo", "stateful", "lag", "masked", "whole", "sequence", "aligned")
numbers = st.lists(st.integers(0, 9), min_size=7, max_size=30)


def untrained(mode, state=None, **options):
    configuration = configure(mode, vocabulary_size=10, hidden_size=8, **options)
    return EchoPredictor(configuration, Plan(configuration).model(), state)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "aligned"
    configuration = configure("aligned", vocabulary_size=10, updates=400, accelerator="cpu")
    assert train(configuration, RunDirectory(path))["accuracy"] > 0.99
    return path


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=10)
@given(symbols=numbers)
def test_every_position_with_an_answer_gets_one(mode, symbols):
    """The places are those of the frames that training uses, only none is dropped."""
    predictor = untrained(mode)
    answers = predictor.answers(symbols)
    if mode not in ("whole", "sequence"):
        for state in ("carried", "fresh"):
            assert [answer[:2] for answer in untrained(mode, state).answers(symbols)] == [a[:2] for a in answers]
    if mode in ("echo", "lag", "masked"):
        frames = with_fields(predictor.configuration.reading, num_dropped=0).frames(len(symbols))
        expected = [(int(s[-1]), int(a[-1])) for s, a in zip(*frames, strict=True) if a[-1] >= 0]
    else:
        expected = [(position, position - 1) for position in range(1, len(symbols))]
    assert [answer[:2] for answer in answers] == expected
    assert predictor.predict(symbols) == [answer.symbol for answer in answers]
    assert all(answer.top[0][0] == answer.symbol for answer in answers)


WAYS = (
    ("echo", {}), ("stateful", {}), ("stateful", {"lag": 6}), ("lag", {"lag": 4}), ("lag", {"carry": "reset"}),
    ("lag", {"batch_size": 7}), ("lag", {"cut": "sequence"}), ("masked", {"batch_size": 4}), ("whole", {}),
    ("sequence", {}), ("aligned", {"reset_every": 24}), ("aligned", {"reset_every": 24, "carry": "reset"}),
)  # fmt: skip


@pytest.mark.parametrize(("mode", "options"), WAYS)
def test_predict_answers_as_the_evaluation_does(mode, options):
    """Position for position, whatever is carried: on a network whose answers hang on all that its state holds."""
    torch.manual_seed(3)
    predictor = untrained(mode, **options)
    for weight in predictor.model.parameters():
        torch.nn.init.normal_(weight, std=2)
    c = replace(predictor.configuration, lanes=5) if mode == "aligned" else predictor.configuration
    stream = Plan(c).evaluation(50)
    by_sequence = {}
    for chunk, logits in read(predictor.model, stream):
        for lane, column in (chunk.targets != -100).nonzero().tolist():
            said = by_sequence.setdefault(int(chunk.sequence[lane]), {})
            said[int(chunk.step[lane, column])] = int(logits[lane, column].argmax())
    length = c.reading.sequence_length
    differs = 0
    for sequence, said in list(by_sequence.items())[:20]:
        symbols = stream.source(np.array(sequence), np.arange(length)).tolist()
        found = {answer.position: answer.symbol for answer in predictor.answers(symbols)}
        assert {position: found[position] for position in said} == said
        if mode not in ("whole", "sequence"):
            other = replace(c, **({"cut": "chunk"} if c.reading.cut == "sequence" else {}))
            other = EchoPredictor(other, predictor.model, "fresh" if predictor.is_carried else "carried")
            differs += sum(a.symbol != found[a.position] for a in other.answers(symbols))
    assert (differs > 0) == (mode not in ("whole", "sequence"))


@pytest.mark.parametrize(("mode", "options"), WAYS)
def test_the_last_answer_is_that_of_the_whole_list(mode, options):
    predictor = untrained(mode, **options)
    for weight in predictor.model.parameters():
        torch.nn.init.normal_(weight, std=2)
    lists = torch.randint(0, 10, (6, 23), generator=torch.Generator().manual_seed(1))
    for length in (7, 22, 23):
        expected = [predictor.predict(row.tolist())[-1] for row in lists[:, :length]]
        assert predictor._last_answers(lists[:, :length]).tolist() == expected


def test_digits_are_explained_too():
    predictor = EchoPredictor(c := configure("lag", vocabulary_size=5000, hidden_size=8), Plan(c).model())
    assert len(predictor.explain(list(range(14)))) == 14


def test_a_state_that_cannot_be_carried_is_refused():
    for mode in ("whole", "sequence"):
        with pytest.raises(ValueError, match=f"`state` must be fresh in mode {mode}.*Got 'carried'"):
            untrained(mode, "carried")
    with pytest.raises(ValueError, match=r"carried, fresh. Got 'fresk' \(did you mean 'fresh'"):
        untrained("lag", "fresk")


@settings(deadline=None, max_examples=10)
@given(numbers)
def test_a_window_is_answered_alike_wherever_it_stands(symbols):
    predictor = untrained("lag", "fresh")
    answers = {answer.position: answer for answer in predictor.answers(symbols)}
    for position, answer in answers.items():
        alone = predictor.answers(symbols[position - 4 : position + 1])
        assert [one.symbol for one in alone] == [answer.symbol]


@pytest.mark.parametrize("mode", ["aligned", "lag", "whole"])
@settings(deadline=None, max_examples=10)
@given(symbols=numbers)
def test_one_at_a_time_is_the_same_as_the_list(mode, symbols):
    predictor = untrained(mode, "fresh" if mode == "lag" else None)
    online = OnlineEcho(predictor.model, window_length=5 if mode == "lag" else None)
    one_by_one = [online.step([symbol])[0] for symbol in symbols]
    for rows_per_block in (3, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inference, "_ROWS_PER_BLOCK", rows_per_block)
            answers = predictor.answers(symbols)
        assert [answer.symbol for answer in answers] == [one_by_one[answer.position] for answer in answers]


@pytest.mark.parametrize("model", ["lstm", "gru", "rnn", "mlp", "memoryless"])
def test_lanes_reset_and_saved_state(model):
    predictor = untrained("aligned", model=model)
    torch.manual_seed(0)
    columns = torch.randint(0, 10, (12, 3)).tolist()
    together, alone = OnlineEcho(predictor.model, 3), OnlineEcho(predictor.model)
    for column in columns[:6]:
        assert together.step(column)[1:2] == alone.step(column[1:2])
    saved = together.state
    first = [together.step(column) for column in columns[6:]]
    together.state = saved
    assert [together.step(column) for column in columns[6:]] == first
    together.state = saved
    together.reset([1])
    fresh = OnlineEcho(predictor.model)
    for column, kept in zip(columns[6:], first, strict=True):
        found = together.step(column)
        assert found[1:2] == fresh.step(column[1:2])
        assert (found[0], found[2]) == (kept[0], kept[2])


def test_a_trained_network_echoes_lists_and_lines(run, capsys):
    predictor = EchoPredictor.load(run)
    assert predictor.predict([1, 3, 0, 3, 2]) == [1, 3, 0, 3]
    shares = predictor.explain([1, 3, 0, 3, 2])
    assert shares[3] > 0.9
    assert max(shares[0], shares[1], shares[2], shares[4]) < 0.1
    assert main(["predict", "--run", str(run), "1", "3", "0", "--explain"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "state: carried from chunk to chunk of 5; as in the training of this run"
    assert shown[1].startswith("after position 1: 1 for position 0, right")
    assert main(["predict", "--run", str(run), "1", "3", "0", "--state", "fresh"]) == 0
    assert capsys.readouterr().out.startswith("state: fresh for every chunk of 5; not as in the training of this run\n")
    assert main(["predict", "--run", str(run), "1", "3", "0", "--explain"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "position 1, 3: in 100%" in shown[-2]
    right, asked = guess_ahead(predictor.configuration, predictor.model)
    assert asked == Plan(predictor.configuration).evaluate(predictor.model).asked
    assert abs(right / asked - 0.1) < 4 * (0.1 * 0.9 / asked) ** 0.5


def test_a_bad_line_disturbs_nothing(run):
    lines = ["3\n", "x\n", "7 1\n", "\n", "10\n", "-1\n", "1_0\n", "5\n", "reset\n", "4", "6"]
    said, complaints = [], []
    answer_lines(OnlineEcho.load(run), lines, said.append, complaints.append)
    clean = []
    answer_lines(OnlineEcho.load(run), ["3", "5", "reset", "4", "6"], clean.append, pytest.fail)
    assert said == clean
    assert (said[1], said[3]) == ("3", "4")
    assert [line.split(":")[0] for line in complaints] == [f"line {number}" for number in range(2, 8)]


@pytest.mark.parametrize("options", [{}, {"encoding": "digits", "base": 3}])
def test_a_missing_number_is_read_as_the_network_reads_it(options):
    predictor = untrained("aligned", **options)
    online, symbols = OnlineEcho(predictor.model), [3, -1, 7, -1, 2]
    logits, _ = predictor.model(torch.tensor([symbols]), predictor.model.initial_state(1))
    expected = most_likely(logits, predictor.model.encoding.num_digits)[0].tolist()
    assert [online.step([symbol])[0] for symbol in symbols] == expected
    for wrong in ([10], [-2], [1, 2], []):
        with pytest.raises(ValueError, match="Got"):
            online.step(wrong)


def test_two_lanes_are_two_streams(run):
    said = []
    pairs = [(3, 5), (1, 2), (9, 0)]
    answer_lines(OnlineEcho.load(run, 2), [f"{one} {two}" for one, two in pairs], said.append, pytest.fail)
    assert said[1:] == ["3 5", "1 2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("1", ["at least 2 numbers", "Got 1"]),
        ("", ["at least 2 numbers", "Got 0"]),
        ("1 2 10", ["0..9", "Got 10 at position 2"]),
        ("1 x", ["Every number of the input must be a whole number. Got 'x'"]),
        ("1 -5", ["Every number of the input", "Got -5"]),
        ("1 2 --column a", ["--column needs --file"]),
        ("1 --file numbers.csv", ["not from both"]),
        ("--file none", ["Cannot read 'none'"]),
        ("--file numbers.csv --column b", ["no column 'b'", "a, when"]),
        ("--file numbers.csv", ["line 1", "--column"]),
        ("--file bad.csv --column a", ["line 3", "Got 'y'"]),
        ("1 2 --top 0", ["--top"]),
        ("1 2 --state carrid", ["--state must be one of carried, fresh", "did you mean 'carried'"]),
    ],
)
def test_bad_input_of_predict(run, capfd, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.csv").write_text("a,when\n1,2\n")
    (tmp_path / "bad.csv").write_text("a\n1\ny\n")
    assert main(["predict", "--run", str(run), *arguments.split()]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_large_one_hot_vocabulary_is_not_kept_as_a_table():
    """A hundred thousand vectors of a hundred thousand numbers would take 40 GB."""
    configuration = configure("aligned", vocabulary_size=100_000, encoding="one-hot", hidden_size=2)
    online = OnlineEcho(Plan(configuration).model())
    assert len(online.step([99_999])) == 1


def test_ahead_asks_nothing_beyond_the_end():
    """Of the 20 rows of a sequence the last one has no symbol after it."""
    predictor = untrained("lag")
    assert guess_ahead(predictor.configuration, predictor.model)[1] == 1000 * 19


def test_what_cannot_be_measured_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"at most 1000 numbers.*Got 1001"):
        EchoPredictor.load(run).explain([1] * 1001)
    own = replace(configure("aligned"), data="numbers.txt")
    with pytest.raises(ValueError, match="trained on 'numbers"):
        guess_ahead(own, Plan(own).model())


@pytest.mark.slow
def test_stream_without_standard_input(run):
    command = [sys.executable, "-m", "echo_torch", "stream", "--run", str(run)]
    found = subprocess.run(["sh", "-c", shlex.join(command) + " <&-"], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    found = subprocess.run(command, input=b"3\n\xff\xfe\n5\n", capture_output=True)
    assert (found.returncode, found.stdout.splitlines()[1]) == (0, b"3")
    assert found.stderr.startswith(b"line 2: ")


@pytest.mark.slow
def test_very_many_symbols(run):
    """Still right far beyond any sequence of training; with SYMBOLS=100000 after a hundred thousand of them."""
    online = OnlineEcho.load(run)
    how_many = int(os.environ.get("SYMBOLS", "20000"))
    numbers = torch.randint(0, 10, (how_many,), generator=torch.Generator().manual_seed(3)).tolist()
    answers = [online.step([number])[0] for number in numbers]
    right = sum(answer == number for answer, number in zip(itertools.islice(answers, 1, None), numbers, strict=False))
    assert right >= 0.99 * (len(numbers) - 1)
