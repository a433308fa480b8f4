import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import generate_sequence, one_hot_decode, one_hot_encode
from echo_torch.models.encoding import (
    Encoding,
    count_asked,
    count_correct,
    loss_sum,
    most_likely,
    to_digits,
    top_symbols,
)


def test_encode_then_decode_gives_the_sequence_back():
    sequence = generate_sequence(25)
    encoded = one_hot_encode(sequence)
    assert encoded.shape == (25, 100)
    assert torch.equal(encoded.sum(dim=1), torch.ones(25))
    assert one_hot_decode(encoded) == sequence


def test_encode_equals_torch_and_takes_any_shape():
    symbols = torch.randint(0, 7, (3, 4, 5))
    assert torch.equal(one_hot_encode(symbols, 7), F.one_hot(symbols, 7).float())


def test_nothing_read_is_a_zero_vector():
    assert torch.equal(one_hot_encode([-1, 1], 3), torch.tensor([[0.0, 0, 0], [0, 1, 0]]))


@pytest.mark.parametrize("symbols", [[3], [-2], [0, 100]])
def test_symbols_outside_the_vocabulary(symbols):
    with pytest.raises(ValueError, match=r"`symbols` must lie in 0\.\.2.*Got"):
        one_hot_encode(symbols, 3)


@pytest.mark.parametrize("symbols", [[0.5], [True], torch.zeros(2, 3)])
def test_symbols_that_are_no_integers(symbols):
    with pytest.raises(ValueError, match=r"`symbols` must be integers.*Got"):
        one_hot_encode(symbols, 3)


def test_decode_takes_one_sequence():
    with pytest.raises(ValueError, match="two axes"):
        one_hot_decode(torch.zeros(2, 3, 4))


def test_scores_leave_out_what_is_not_asked():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5)
    best = logits.argmax(-1)
    targets = torch.tensor([[int(best[0, 0]), -100, -100], [-100, (int(best[1, 1]) + 1) % 5, -100]])
    assert count_asked(targets) == 2
    assert count_correct(logits, targets) == 1
    by_hand = -(logits[0, 0].log_softmax(-1)[targets[0, 0]] + logits[1, 1].log_softmax(-1)[targets[1, 1]])
    torch.testing.assert_close(loss_sum(logits, targets), by_hand)


def test_loss_where_nothing_is_asked_is_zero():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = loss_sum(logits, torch.full((2, 3), -100))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3, 5))


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
