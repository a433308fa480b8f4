"""A model of the user's own in a configuration: its path, its arguments as text, the options that have no effect."""

import shlex
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import EXPERIMENTS, configure
from echo_torch.cli import main
from echo_torch.errors import RuleError
from echo_torch.experiments.configuration import (
    command_line,
    count_parameters,
    describe,
    differences,
    memory_length,
    replace,
)
from echo_torch.experiments.model_options import canonical_model_options, read_model_options

OWN = "nowhere.models:Net"
OF_NETWORKS = {
    "hidden_size": 9,
    "layers": 1,
    "mlp_window": 3,
    "encoding": "digits",
    "base": 7,
    "init": "torch",
    "kernel": "auto",
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("width=32,depth=2", {"depth": 2, "width": 32}),
        (" width = 032 , rate=1e-3 ", {"width": 32, "rate": 0.001}),
        ("a=true,b=False,c=none", {"a": True, "b": False, "c": None}),
        ("norm=layer,path=a=b/c", {"norm": "layer", "path": "a=b/c"}),
        ("a=-1,b=+2.5,c=.5,d=1_0", {"a": -1, "b": 2.5, "c": 0.5, "d": "1_0"}),
    ],
)
def test_arguments_as_text(text, values):
    found = read_model_options(text)
    assert found == values
    assert [type(found[name]) for name in values] == [type(value) for value in values.values()]
    again = canonical_model_options(text)
    assert again == canonical_model_options(again) == canonical_model_options(values)


names = st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True)
words = st.text(st.characters(codec="utf-8", exclude_characters=",", exclude_categories=("Cs",)), max_size=6)
plain_values = st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), words)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(names, plain_values, min_size=1, max_size=4))
def test_what_a_dict_says_is_what_is_read(values):
    """Or it is refused: a text that would be read as a number is never taken for one."""
    try:
        text = canonical_model_options(values)
    except RuleError:
        return
    found = read_model_options(text)
    assert found == values
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in values.items()}


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("width", "Got 'width'"),
        ("", "Got ''"),
        ("width=", "Got 'width='"),
        ("=3", "Got '', which is no name"),
        ("a b=3", "Got 'a b', which is no name"),
        ("a=1,a=2", "Got a twice"),
        ("a=1,,b=2", "Got ''"),
        ("a=1e999", "1e999, which is too large"),
        ("a=" + "9" * 600, "at most 500 characters. Got 602 characters"),
        (5, "Got 5"),
        ({"a": [1]}, "Got a list for a"),
        ({"a": "32"}, "'32' for a, which is not the same when it is read as text"),
        ({"a": "x,b=2"}, "which is not the same"),
        ({"a": float("inf")}, "which is not the same"),
        ({1: 2}, "Got '1', which is no name"),
    ],
)
def test_bad_arguments(value, got):
    with pytest.raises(ValueError, match=r"^`model_options` must be ") as caught:
        configure("lag", model=OWN, model_options=value)
    assert got in str(caught.value)


@pytest.mark.parametrize(
    "word", ["lstmm", "a.b", ":Net", "a.b:", "a-b:Net", "a/b.py:Net", "a:b:c", "1a:B", "a.:B", " a:B"]
)
def test_a_model_that_is_neither_a_word_nor_a_path(word):
    with pytest.raises(ValueError, match=r"`model` must be one of lstm, gru.* is written package.module:Class\.$"):
        configure("lag", model=word)
    if word == "lstmm":
        with pytest.raises(ValueError, match=r"Got 'lstmm' \(did you mean 'lstm'\?\); a model of your own"):
            configure("lag", model=word)


@pytest.mark.parametrize("mode", EXPERIMENTS)
@pytest.mark.parametrize("options", [{}, {"model_options": {"width": 32, "depth": 2}}, {"vocabulary_size": 5000}])
def test_an_own_model_has_its_own_options(mode, options):
    """Nothing of it is imported for that."""
    c = configure(mode, model=OWN, **options)
    values = c.to_dict()
    assert set(values) == {"mode", *EXPERIMENTS[mode].options} - set(OF_NETWORKS)
    assert values["model_options"] == ("depth=2,width=32" if "model_options" in options else None)
    assert configure(**values) == c
    assert replace(c, seed=2).options() == {**c.options(), "seed": 2}
    assert count_parameters(c) is memory_length(c) is None
    assert describe(c) == describe(configure(mode, vocabulary_size=c.vocabulary_size))
    assert "nowhere" not in sys.modules


@pytest.mark.parametrize("options", [{"model": OWN}, {"model": OWN, "model_options": "a=1", "vocabulary_size": 5000}])
def test_the_command_of_an_own_model_gives_it_back(capsys, options):
    c = configure("echo", seed=3, **options)
    given = shlex.split(command_line(c))
    assert main([*given[3:], "--print-config"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert configure(**{name: value for name, value in values.items() if name != "format"}) == c


@pytest.mark.parametrize("name", OF_NETWORKS)
def test_options_of_the_networks_here_are_refused_with_an_own_model(name):
    message = (
        f"`{name}` has an effect only where `model` is one of the networks here.*Got {OF_NETWORKS[name]} with model"
    )
    with pytest.raises(ValueError, match=message):
        configure("lag", model=OWN, **{name: OF_NETWORKS[name]})


def test_arguments_are_refused_without_an_own_model():
    with pytest.raises(ValueError, match="`model_options` has an effect only where `model` is a class of your own"):
        configure("lag", model="gru", model_options="width=3")
    assert "model_options" not in configure("lag").to_dict()


def test_two_models_differ_in_their_names_and_arguments_alone():
    here, own = configure("lag"), configure("lag", model=OWN)
    assert differences(here, own) == {"model": ("lstm", OWN)}
    assert differences(own, replace(own, model_options="a=1")) == {"model_options": (None, "a=1")}
    assert differences(own, replace(own, sequences=3000)) == {}


def test_a_chunk_of_an_own_model_is_bounded_too():
    with pytest.raises(ValueError, match="`batch_size`, `window`, `length` and `vocabulary_size` must leave one chunk"):
        configure("lag", model=OWN, vocabulary_size=10**8)
