"""Padding, missing symbols, lengths and digits: what the extensions of the tutorial rest on."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import EXPERIMENTS, EchoLSTM, RandomSymbols, configure
from echo_torch.data.framing import frame_masked, frame_prefixes, frame_sequence
from echo_torch.data.random_symbols import missing
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import Encoding, count_correct, loss_sum, most_likely, to_digits, top_symbols

small = st.integers(1, 12)


@settings(deadline=None, max_examples=50)
@given(small, small, st.integers(0, 6))
def test_frames_by_their_definition(length, window, lag):
    masked, prefixes, whole = (
        frame_masked(length, window, lag),
        frame_prefixes(length, lag),
        frame_sequence(length, lag),
    )
    for row in range(length):
        answer = row - lag if row >= lag else -1
        assert masked.steps[row].tolist() == [step if step >= 0 else -1 for step in range(row - window + 1, row + 1)]
        assert masked.answers[row].tolist() == [-1] * (window - 1) + [answer]
        assert prefixes.steps[row].tolist() == [*range(row + 1), *[-1] * (length - row - 1)]
        assert prefixes.answers[row].tolist() == [answer if column == row else -1 for column in range(length)]
        assert whole.answers[0, row] == answer
    assert whole.steps.tolist() == [list(range(length))]


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 20), st.integers(1, 7), st.integers(0, 3))
def test_padding_does_not_touch_the_answer(length, batch_size, lag):
    """The padded rows of `whole` give what each prefix gives alone."""
    if lag >= length:
        return
    torch.manual_seed(0)
    model = EchoLSTM(10, 5)
    c = configure("whole", length=length, batch_size=batch_size, lag=lag, vocabulary_size=10)
    sequence = torch.from_numpy(RandomSymbols(10)(np.array(0), np.arange(length)))
    asked = 0
    for chunk in itertools.islice(Plan(c).training(), Plan(c).num_updates // c.reading.sequences):
        assert chunk.starts.all()
        logits, _ = model(chunk.symbols, model.initial_state(len(chunk.symbols)))
        for lane, column in (chunk.targets >= 0).nonzero().tolist():
            alone, _ = model(sequence[None, : column + 1], model.initial_state(1))
            torch.testing.assert_close(logits[lane, column], alone[0, -1])
            assert chunk.targets[lane, column] == sequence[column - lag]
            asked += 1
    assert asked == length - lag


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(EXPERIMENTS)), st.floats(0.05, 0.9), st.integers(0, 5))
def test_a_missing_symbol_is_missing_everywhere_and_asked_all_the_same(mode, share, seed):
    plain = configure(mode, seed=seed, vocabulary_size=10)
    lossy = configure(mode, seed=seed, vocabulary_size=10, missing=share)
    for whole, chunk in itertools.islice(zip(Plan(plain).training(), Plan(lossy).training(), strict=False), 8):
        lost = torch.from_numpy(missing(seed, "training", chunk.sequence[:, None].numpy(), chunk.step.numpy(), share))
        assert torch.equal(chunk.symbols, whole.symbols.masked_fill(lost, -1))
        assert torch.equal(chunk.targets, whole.targets)
        assert torch.equal(chunk.step, whole.step)


def test_what_is_missing_says_nothing_of_the_symbol():
    """Else a network could guess what it cannot read."""
    sequence, step = np.arange(2000)[:, None], np.arange(25)
    lost = RandomSymbols(10)(sequence, step)[missing(1, "training", sequence, step, 0.3)]
    counts = np.bincount(lost, minlength=10)
    expected = lost.size / 10
    assert ((counts - expected) ** 2 / expected).sum() < 33.7  # chi-square, 9 degrees of freedom, p = 0.0001


def test_whole_sequences_side_by_side():
    c = configure("sequence", batch_size=3, length=8)
    chunks = list(itertools.islice(Plan(c).training(), 2))
    assert [chunk.sequence.tolist() for chunk in chunks] == [[0, 1, 2], [3, 4, 5]]
    assert all(chunk.symbols.shape == (3, 8) and chunk.starts.all() for chunk in chunks)


def test_the_share_that_is_missing_and_its_ceiling():
    lost = missing(1, "training", np.arange(1000)[:, None], np.arange(200), 0.3)
    assert abs(lost.mean() - 0.3) < 5 * (0.3 * 0.7 / lost.size) ** 0.5
    for mode in ("lag", "masked", "whole", "sequence", "aligned"):
        assert Plan(configure(mode, missing=0.3)).reach().gap == 0
        c = configure(mode, missing=0.3)
        read = asked = 0
        for chunk in Plan(c).evaluation():
            asked += int((chunk.targets >= 0).sum())
            places = chunk.step[chunk.targets >= 0] - 1
            sequences = chunk.sequence[:, None].expand_as(chunk.step)[chunk.targets >= 0]
            read += int((~missing(1, "evaluation", sequences.numpy(), places.numpy(), 0.3)).sum())
        assert Plan(c).evaluation_ceiling() == pytest.approx(read / asked + (1 - read / asked) / 100)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([mode for mode in sorted(EXPERIMENTS) if mode != "aligned"]), st.integers(2, 100), small)
def test_every_length_works_or_says_why(mode, length, batch_size):
    try:
        c = configure(mode, length=length, batch_size=batch_size, vocabulary_size=10)
    except ValueError as error:
        assert length < 6 and "`length` must be at least" in str(error)  # noqa: PT017, PT018
        return
    asked = sum(int((chunk.targets >= 0).sum()) for chunk in Plan(c).evaluation(num_sequences=3))
    first = {"stateful": 1, "lag": 5, "echo": 0}.get(mode, 1)
    assert asked == 3 * (length - first)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 10**9), st.integers(2, 40), st.data())
def test_digits_there_and_back(vocabulary_size, base, data):
    encoding = Encoding(vocabulary_size, base)
    symbols = torch.tensor(data.draw(st.lists(st.integers(0, vocabulary_size - 1), min_size=1, max_size=5)))
    vectors = encoding.encode(symbols)
    assert vectors.shape == (len(symbols), encoding.size)
    assert torch.equal(vectors.sum(dim=-1), torch.full((len(symbols),), float(encoding.num_digits)))
    assert torch.equal(most_likely(vectors, encoding.num_digits), symbols)
    assert not encoding.encode(torch.tensor([-1])).any()


def test_right_only_if_all_digits_are():
    targets = torch.tensor([[407, -100, 12]])
    logits = 20 * Encoding(1000, 10).encode(torch.tensor([[407, 5, 13]]))
    assert int(count_correct(logits, targets, 3)) == 1
    assert float(loss_sum(logits[:, :2], targets[:, :2], 3)) == pytest.approx(0, abs=1e-6)
    assert float(loss_sum(logits, targets, 3)) == pytest.approx(20, abs=1e-5)  # the last digit of 12 alone is wrong
    assert to_digits(targets, 10, 3, where_negative=-100).tolist()[0][1] == [-100] * 3


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(1, 10))
def test_the_likeliest_symbols_by_trying_all(num_digits, base, count):
    torch.manual_seed(num_digits * 10 + base)
    logits = torch.randn(2, num_digits * base)
    every = Encoding(base**num_digits, base).encode(torch.arange(base**num_digits)).reshape(-1, num_digits * base)
    chances = (every @ logits.reshape(2, num_digits, base).log_softmax(-1).flatten(1).T).T.exp()
    symbols, shares = top_symbols(logits, count, num_digits)
    expected = chances.topk(min(count, base**num_digits))
    assert torch.equal(symbols, expected.indices)
    torch.testing.assert_close(shares, expected.values)
    assert torch.equal(symbols[:, 0], most_likely(logits, num_digits))


def test_one_hot_is_one_digit():
    symbols = torch.tensor([[3, -1, 0]])
    assert torch.equal(Encoding(7).encode(symbols), Encoding(7, base=7).encode(symbols))


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
