import pytest

from echo_torch import EXPERIMENTS
from echo_torch.cli.program import _COMMANDS, _parser
from echo_torch.experiments import other_words
from echo_torch.experiments.options import OPTIONS
from echo_torch.experiments.other_words import meanings, suggest_choice, suggest_option


def guessed(word, mode="lag"):
    known = [OPTIONS[name].flag for name in EXPERIMENTS[mode].options]
    return suggest_option(word, known).removeprefix(" (did you mean '--").removesuffix("'?)")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--epochs --n-epochs --nb_epoch --max-epochs num_epochs --num-train-epochs", "sequences"),
        ("--iterations --max-steps --train-steps --n-batches", "updates"),
        ("--lr --learningrate --base-lr", "learning-rate"),
        ("--units --n-units --hidden --hidden-dim --nhid --rnn-size --state-size hiden_size", "hidden-size"),
        ("--bs --batch --batchsize --n-batch --mini-batch-size", "batch-size"),
        ("--num-layers --n-layers --nlayers --depth", "layers"),
        ("--timesteps --n_timesteps --n-steps --lookback --window-size --bptt --n-in", "window"),
        ("--seq-len --sequence-length --maxlen", "length"),
        ("--features --n-features --num-classes --vocab --vocab-size --input-dim --n-unique", "vocabulary-size"),
        ("--device --gpu --use-cuda", "accelerator"),
        ("--gpus --num-gpus --nproc-per-node", "devices"),
        ("--num-workers", "workers"),
        ("--clipnorm --grad-clip --max-grad-norm --gradient-clip-val", "clip-norm"),
        ("--delay --echo-step --num-lags", "lag"),
        ("--val-every --eval-every --val-check-interval", "validate-every"),
        ("--stateful", "carry"),
    ],
)
def test_a_word_of_another_library_is_understood(words, name):
    assert [guessed(word) for word in words.split()] == [name] * len(words.split())


def test_a_meaning_is_one_that_the_mode_has():
    found = [guessed(word, "aligned") for word in ("--epochs", "--batch-size", "--timesteps", "--seq-len", "--bptt")]
    assert found == ["updates", "lanes", "chunk", "chunk", "chunk"]
    assert guessed("--timesteps", "sequence") == "length"


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_no_guess_is_better_than_a_wrong_one(mode):
    words = (
        "dropout optimizer momentum weight-decay loss shuffle patience bidirectional embedding-dim n-heads dtype amp"
    )
    assert [guessed(f"--{word}", mode) for word in words.split()] == [""] * 12


def test_a_mode_by_the_headings_of_the_tutorial():
    words = ("echo-current", "beginners_mistake", "without-context", "context", "Lag", "lagg", "foo")
    found = [suggest_choice("mode", word, EXPERIMENTS) for word in words]
    expected = ["echo", "stateful", "stateful", "lag", "lag", "lag"]
    assert found == [*(f" (did you mean {mode!r}?)" for mode in expected), ""]


def test_a_choice():
    for name, word, meant in (
        ("accelerator", "gpu", "cuda"),
        ("accelerator", "CPU", "cpu"),
        ("carry", "True", "keep"),
        ("carry", "stateless", "reset"),
        ("model", "LSTM", "lstm"),
        ("model", "SimpleRNN", "rnn"),
        ("encoding", "one_hot", "one-hot"),
    ):
        assert suggest_choice(name, word, OPTIONS[name].choices) == f" (did you mean {meant!r}?)"
    assert suggest_choice("model", "transformer", OPTIONS["model"].choices) == ""


def test_the_tables_name_nothing_that_is_not_there():
    commands = next(action for action in _parser()._actions if action.choices and "train" in action.choices).choices
    flags = {flag[2:].replace("-", "_") for command in commands.values() for flag in command.get_default("flags")}
    assert {name for names in other_words._OPTIONS for name in names.split()} <= flags
    choices = {"mode": EXPERIMENTS, "command": [name for name, *_ in _COMMANDS]}
    for name, table in other_words._CHOICES.items():
        assert set(table) <= set(choices.get(name) or OPTIONS[name].choices)


def test_no_option_means_another_in_a_mode_that_has_both():
    """Else a flag that is refused would be said to mean what it does not."""
    for name in OPTIONS:
        for mode, experiment in EXPERIMENTS.items():
            if name not in experiment.options:
                others = [other for other in meanings(name) if other in experiment.options]
                assert others in ([], ["updates"], ["chunk"], ["window"], ["lanes"], ["batch_size"]), (name, mode)
