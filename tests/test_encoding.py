import pytest
import torch
import torch.nn.functional as F

from echo_torch import generate_sequence, one_hot_decode, one_hot_encode
from echo_torch.models.encoding import count_asked, count_correct, loss_sum


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
    with pytest.raises(TypeError, match=r"`symbols` must be integers.*Got"):
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
