import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_torch import RandomSymbols, generate_sequence
from echo_torch.data.random_symbols import missing, symbol


def test_golden_values():
    """The same symbols for ever: results of older versions stay comparable."""
    assert generate_sequence(10) == [77, 94, 79, 27, 10, 11, 40, 66, 85, 2]
    far = generate_sequence(5, 10**9, seed=7, split="evaluation", sequence=123456)
    assert far == [282829339, 330250265, 98148095, 558459365, 832360085]


def test_no_hidden_state_and_any_order():
    whole = symbol(3, "training", 5, np.arange(100), 50)
    backwards = [int(symbol(3, "training", 5, step, 50)) for step in reversed(range(100))]
    assert whole.tolist() == backwards[::-1]


@given(
    st.integers(0, 2**64 - 1),
    st.sampled_from(["training", "evaluation"]),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(1, 2**31),
)
def test_within_the_vocabulary(seed, split, sequence, step, vocabulary_size):
    assert 0 <= int(symbol(seed, split, sequence, step, vocabulary_size)) < vocabulary_size


@pytest.mark.parametrize("vocabulary_size", [2, 10, 100, 997])
def test_uniform_by_chi_square(vocabulary_size):
    draws = symbol(1, "training", np.arange(2000)[:, None], np.arange(100), vocabulary_size).ravel()
    counts = np.bincount(draws, minlength=vocabulary_size)
    expected = len(draws) / vocabulary_size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    degrees = vocabulary_size - 1
    assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


def test_successive_symbols_are_independent():
    draws = symbol(1, "training", np.arange(2000)[:, None], np.arange(100), 10)
    pairs = np.bincount((draws[:, :-1] * 10 + draws[:, 1:]).ravel(), minlength=100)
    chi_square = ((pairs - pairs.mean()) ** 2 / pairs.mean()).sum()
    assert abs(chi_square - 99) < 5 * (2 * 99) ** 0.5


@pytest.mark.parametrize("other", [{"seed": 2}, {"split": "evaluation"}, {"sequence": 1}])
def test_every_argument_matters(other):
    one, two = generate_sequence(1000), generate_sequence(1000, **other)
    share_equal = np.mean(np.equal(one, two))
    assert share_equal < 0.03  # 1/100 by chance


def test_source_reads_nothing_at_negative_steps():
    source = RandomSymbols(100, seed=4)
    found = source(np.array([[7]]), np.array([[0, -1, 3]]))
    assert found[0, 1] == -1
    assert found[0, [0, 2]].tolist() == [generate_sequence(4, seed=4, sequence=7)[step] for step in (0, 3)]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"split": "test"}, "split"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"vocabulary_size": 0}, "vocabulary_size"),
        ({"vocabulary_size": 2**31 + 1}, "vocabulary_size"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ValueError, match=rf"`{word}`.*Got"):
        RandomSymbols(**arguments)
    with pytest.raises(ValueError, match="length"):
        generate_sequence(0)


def test_what_is_missing_says_nothing_of_the_symbol():
    """Else a network could guess what it cannot read."""
    sequence, step = np.arange(2000)[:, None], np.arange(25)
    lost = RandomSymbols(10)(sequence, step)[missing(1, "training", sequence, step, 0.3)]
    counts = np.bincount(lost, minlength=10)
    expected = lost.size / 10
    assert ((counts - expected) ** 2 / expected).sum() < 33.7  # chi-square, 9 degrees of freedom, p = 0.0001
