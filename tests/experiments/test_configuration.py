import math
import shlex

import pytest
import yaml

from echo_torch import EXPERIMENTS, configure
from echo_torch.cli import program as cli
from echo_torch.cli.parser import words_of
from echo_torch.experiments.configuration import OPTIONS, command_line, describe, replace
from echo_torch.lab.plan import Plan

BAD_NUMBERS = ["0", "-1", "x", "", "1.5", "nan", "inf", "1e999", "9" * 5000, None, [], {}, True, 10**30]


def test_the_tutorials_sizes():
    sizes = {
        "echo": (500, 1, 15, 0, 1, 25),
        "stateful": (2000, 6, 50, 1, 1, 4),
        "lag": (2000, 5, 50, 1, 5, 4),
    }
    for mode, (sequences, batch_size, hidden_size, lag, window, chunks) in sizes.items():
        c = configure(mode)
        assert (c.reading.sequences, c.reading.batch_size, c.hidden_size, c.reading.lag, c.reading.window) == (
            sequences,
            batch_size,
            hidden_size,
            lag,
            window,
        )
        assert (c.reading.length, c.vocabulary_size, c.learning_rate) == (25, 100, 1e-3)
        assert Plan(c).layout.chunks_per_sequence == chunks
        assert Plan(c).num_updates == sequences * chunks


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_a_configuration_survives_the_way_through_a_file(mode):
    configuration = configure(mode, seed=7, updates=3)
    values = configuration.to_dict()
    assert configure(**values) == configuration
    assert set(values) == {"mode", *EXPERIMENTS[mode].options} - {"model_options"}


def test_updates_replace_the_default_number_of_sequences():
    assert configure("lag", updates=7).reading.sequences is None
    assert Plan(configure("lag", updates=7)).num_updates == 7
    assert Plan(configure("lag", sequences=7)).num_updates == 28
    with pytest.raises(ValueError, match="only one can be given"):
        configure("lag", updates=7, sequences=7)


def test_text_and_numbers_are_the_same():
    assert configure("lag", lag="3", learning_rate="1e-2") == configure("lag", lag=3, learning_rate=0.01)


@pytest.mark.parametrize("value", BAD_NUMBERS)
@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind is int])
def test_bad_whole_numbers(name, value):
    if value is None and OPTIONS[name].is_optional:
        return
    if OPTIONS[name].low == 0 and value == "0":
        return
    mode = "lag" if name in EXPERIMENTS["lag"].options else "aligned"
    with pytest.raises(ValueError, match=rf"^`{name}` must be a whole number.*Got") as caught:
        configure(mode, **{name: value})
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf", math.nan, 1e300, [], True])
@pytest.mark.parametrize("name", ["learning_rate", "clip_norm"])
def test_bad_numbers(name, value):
    with pytest.raises(ValueError, match=rf"^`{name}` must be a number.*Got"):
        configure("lag", **{name: value})


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("lagg", {}, r"`mode` must be one of .*Got 'lagg' \(did you mean 'lag'\?\)"),
        (["lag"], {}, "`mode` must be one of"),
        ("lag", {"hiden_size": 5}, r"no option 'hiden_size' \(did you mean 'hidden_size'\?\)"),
        ("lag", {"lag": 5}, "`lag` must be smaller than `window` in mode lag, .*Got lag 5 with window 5"),
        ("lag", {"length": 5}, r"`length` must be at least window \+ 1 = 6.*Got 5"),
        ("stateful", {"length": 1}, r"`length` must be at least window \+ 1 = 2.*Got 1"),
        ("stateful", {"lag": 25}, "`lag` must be smaller than `length`.*Got lag 25 with length 25"),
        ("echo", {"lag": 1}, "`lag` is always 0 in mode echo.*Got 1"),
        ("stateful", {"window": 3}, "`window` is always 1 in mode stateful.*Got 3"),
        ("lag", {"carry": "keeep"}, r"`carry` must be one of keep, reset. Got 'keeep' \(did you mean 'keep'\?\)"),
        ("lag", {"carry": "reset", "cut": "sequence"}, "`cut` can be 'sequence' only"),
        ("echo", {"cut": "sequence"}, "`cut` can be 'sequence' only"),
        ("lag", {"tensorboard": "yes"}, "`tensorboard` must be true or false. Got 'yes'"),
        ("lag", {"hidden_size": 50000}, "at most 200,000,000 parameters"),
        ("lag", {"batch_size": 10**6}, "at most 200,000,000 numbers"),
        ("lag", {"lanes": 3}, "`lanes` has no meaning in mode lag.*Got 3"),
        ("lag", {"stagger": True}, "`stagger` has no meaning in mode lag.*Got True"),
        ("aligned", {"cut": "sequence"}, "`cut` is always chunk in mode aligned"),
        ("aligned", {"sequences": 5}, "`sequences` has no meaning in mode aligned"),
        ("aligned", {"chunk": 0}, "`chunk` must be a whole number between 1"),
        ("aligned", {"reset_every": 2, "lag": 2}, "`lag` must be smaller than `reset_every`.*Got lag 2"),
        ("aligned", {"stagger": True}, "`stagger` needs `reset_every`"),
        ("aligned", {"lanes": 10**6}, "at most 200,000,000 numbers"),
        ("lag", {"windows_dropped": 0}, "no option 'windows_dropped'"),
    ],
)
def test_rules(mode, options, message):
    with pytest.raises(ValueError, match=message):
        configure(mode, **options)


@pytest.mark.parametrize("mode", EXPERIMENTS)
@pytest.mark.parametrize("options", [{"length": 6}, {"length": 1000}, {"vocabulary_size": 2}, {"batch_size": 7}])
def test_other_numbers_work(mode, options):
    if not set(options) <= set(EXPERIMENTS[mode].options):
        with pytest.raises(ValueError, match="has no meaning in mode aligned"):
            configure(mode, **options)
        return
    chunk = next(iter(Plan(configure(mode, **options)).training()))
    assert chunk.symbols.max() < configure(mode, **options).vocabulary_size


def test_length_5_works_where_a_window_fits():
    assert configure("echo", length=5).reading.length == configure("stateful", length=5).reading.length == 5


def test_sentences_for_the_command_line():
    say = words_of(["--window", "--batch-size", "--lags"], {"lag": "--lags", "symbols": "the input"})
    words = [say(name) for name in ("window_length", "batch_size", "lag", "symbols", "hidden_size")]
    assert words == ["--window", "--batch-size", "--lags", "the input", "hidden size"]


def test_replace_checks_anew():
    assert replace(configure("lag"), lag=2).reading.lag == 2
    with pytest.raises(ValueError, match="smaller than"):
        replace(configure("lag"), lag=9)


@pytest.mark.parametrize("mode", EXPERIMENTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": 3, "updates": 7, "clip_norm": 0.5, "tensorboard": True},
        {"vocabulary_size": 5000, "encoding": "one-hot"},
        {"vocabulary_size": 5000, "hidden_size": 50},
        {"encoding": "digits", "base": 7, "hidden_size": 50},
        {"model": "mlp", "mlp_window": 7},
        {"data": "-odd file's.csv", "column": "-c", "vocabulary_size": 100},
    ],
)
def test_the_command_of_a_configuration_gives_it_back(capsys, mode, options):
    c = configure(mode, **options)
    words = shlex.split(command_line(c))
    assert words[:3] == ["python", "-m", "echo_torch"]
    assert cli.main([*words[3:], "--print-config"]) == 0
    assert configure(**without_format(yaml.safe_load(capsys.readouterr().out))) == c


def test_a_command_says_nothing_that_follows_from_the_rest():
    command = command_line(configure("lag", vocabulary_size=10**6))
    assert command == "python -m echo_torch train --mode lag --vocabulary-size 1000000"
    assert command_line(configure("lag", vocabulary_size=5000, encoding="digits", base=7)).endswith(
        "--vocabulary-size 5000 --base 7"
    )


def test_large_numbers_are_read_easily():
    assert describe(configure("lag", vocabulary_size=10**6)).startswith(
        "say the symbol 1 step ago (one of 1,000,000 symbols), "
    )


def without_format(values):
    return {name: value for name, value in values.items() if name != "format"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mlp_window": 3}, "`mlp_window` has an effect only where `model` is mlp"),
        ({"base": 3}, "`base` has an effect only where `encoding` is digits"),
        ({"model": "mlp", "layers": 2}, "`layers` must be 1"),
        ({"model": "gru", "init": "keras"}, "`init` can be keras only"),
        ({"missing": 1}, "`missing` must be a number between 0 and 0.99"),
    ],
)
def test_options_without_effect_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        configure("aligned", **options)
