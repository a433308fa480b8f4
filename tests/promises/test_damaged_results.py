"""A finished run that was damaged is never trained over and never made a table of: one sentence says what to do."""

import json

import pytest
from support.runs import copied, everything

from echo_torch import RunDirectory, configure, train
from echo_torch.cli import main
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import replace
from echo_torch.lab.comparison import ARMS, Arm
from echo_torch.lab.results import read_finished

SMALL = configure("lag", vocabulary_size=5, hidden_size=3, updates=12, log_every=4, accelerator="cpu", seed=1)
DAMAGED = "The finished run {!r} is damaged; move it away to do it again.\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("damaged") / "small-seed1")
    train(SMALL, run)
    return run


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy, which `compare --arms small --seeds 1` finds."""
    options = {"vocabulary_size": 5, "hidden_size": 3, "updates": 12, "log_every": 4}
    monkeypatch.setitem(ARMS, "small", Arm("small", "small", "lag", options))
    return copied(finished, tmp_path / "runs" / "small-seed1")


def check_refused(run, capfd, sentence):
    """The command says it, and leaves everything as it is."""
    before = everything(run.path)
    arguments = ["compare", "--arms", "small", "--seeds", "1", "--run-dir", str(run.path.parent), "--no-progress"]
    assert main(arguments) == 2
    assert capfd.readouterr().err == sentence
    assert everything(run.path) == before


WORD, NAN, MANY, LESS, NONE = "a word", float("nan"), 2, -1, None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config", (WORD, NONE, [], {}, {"mode": WORD}, {"mode": "lag", "lag": WORD})),
        ("accuracy", (WORD, NAN, MANY, LESS, NONE, True, [], {}, "0.5")),
        ("accuracy_reset", (WORD, NAN, MANY, LESS, NONE)),
        ("accuracy_by_chunk", (WORD, NONE, 0.5, [], [WORD], [[]], [0.5], [NONE] * 4, [0.5, NONE, 0.5, 0.5], [NAN] * 4)),
        ("targets", (WORD, NAN, LESS, NONE, 0.5, 0, 10**400)),
        ("targets_by_chunk", (WORD, NONE, 5, [], [WORD] * 4, [1, 1, 1, 1], [0.5] * 4)),
        ("updates", (WORD, NAN, LESS, NONE, 0.5)),
        ("chance", (WORD, NAN, MANY, LESS, NONE)),
        ("seconds", (WORD, NAN, LESS, NONE, float("inf"))),
        ("parameters", (WORD, NAN, LESS, NONE, 0.5)),
        ("loss", (WORD, NONE, True, [])),
        ("ceiling", (WORD, NAN, MANY, LESS)),
        ("accuracy_reset_high", (WORD, NAN, MANY, LESS, NONE)),
        ("accuracy_reset_by_chunk", (WORD, NONE, [], [0.5], [NONE] * 4, [0.5, NONE, 0.5, 0.5])),
        ("gaps", (WORD, NONE, [], {WORD: 1}, {"0": WORD}, {"0": LESS}, {"0": 0.5}, {"1e3": 1})),
        ("versions", (WORD, NONE, [], {"torch": 2})),
        ("weights_sha256", (NONE, 5)),
    ],
)
def test_words_and_worse_in_the_place_of_numbers(run, capfd, name, values):
    result = run.read_result()
    for value in values:
        run.result.write_text(json.dumps({**result, name: value}))
        check_refused(run, capfd, DAMAGED.format(str(run.path)))


@pytest.mark.parametrize("name", ["accuracy", "accuracy_by_chunk", "parameters", "seconds", "targets_by_chunk"])
def test_a_number_that_is_not_there(run, capfd, name):
    result = run.read_result()
    del result[name]
    run.result.write_text(json.dumps(result))
    whole = DAMAGED.format(str(run.path))
    check_refused(run, capfd, whole.replace("damaged;", f"damaged: it has no {name!r};"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"config":' * 200_000,
        "{}",
        "[]",
        "",
        "null",
        "5",
        WORD,
        "9" * 5000,
        "\0" * 1000,
        '{"config": {}}',
    ],
)
def test_a_result_that_is_none(run, capfd, text):
    run.result.write_text(text)
    check_refused(run, capfd, DAMAGED.format(str(run.path)))


def test_a_run_that_says_it_asked_nothing(run, capfd):
    """Of a run that asks nothing it would be right."""
    result = run.read_result()
    nothing = {"accuracy": None, "accuracy_reset": None, "targets": 0, "accuracy_by_chunk": [], "targets_by_chunk": []}
    run.result.write_text(json.dumps({**result, **nothing}))
    check_refused(run, capfd, DAMAGED.format(str(run.path)))


HEADER = "update,sequences,symbols,targets,loss,accuracy\n"


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", HEADER, HEADER[:-1], "4,1,25,20,1.5,0.5\n", HEADER + "4,1,25,20,1.5\n", HEADER + "4,1,25,20,1.5,0.5",
        HEADER + "4,1,a word,20,1.5,0.5\n", HEADER + "4,1,25,nan,1.5,0.5\n", HEADER + "4,1,,20,1.5,0.5\n",
        HEADER + "4,1,inf,20,1.5,0.5\n", HEADER + "4,1,25,20,1.5,7\n", HEADER + "4,1,25,20,1.5,0.5,1\n",
        "update,sequences,targets,loss,accuracy\n4,1,20,1.5,0.5\n", "\0" * 10_000, HEADER + "4,1,25,20,1.5,0.5\n\n",
    ],
)  # fmt: skip
def test_rows_that_are_none(run, capfd, text):
    run.metrics.write_text(text)
    check_refused(run, capfd, DAMAGED.format(str(run.path)))


def test_rows_that_are_not_there(run, capfd):
    run.metrics.unlink()
    check_refused(run, capfd, DAMAGED.format(str(run.path)))


def test_what_a_run_writes_is_taken(run, finished):
    """An accuracy is empty where nothing was asked since the row before."""
    configuration = ARMS["small"].configuration(1)
    assert read_finished(run, configuration) == finished.read_result()
    run.metrics.write_text(HEADER + "4,1,25,0,,\n8,2,50,20,1.5,0.5\n")
    assert read_finished(run, configuration) == finished.read_result()
    with pytest.raises(UserError, match="holds a finished run with other options"):
        read_finished(run, replace(configuration, lag=2))
