from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from echo_torch import LSTMState, detach_state, reset_state


class OneField(NamedTuple):
    hidden: Tensor


def test_reset_zeros_the_chosen_lanes_only():
    state = LSTMState(torch.randn(2, 4, 3), torch.randn(2, 4, 3))
    found = reset_state(state, torch.tensor([False, True, False, True]))
    assert isinstance(found, LSTMState)
    for before, after in zip(state, found, strict=True):
        assert torch.equal(after[:, [1, 3]], torch.zeros(2, 2, 3))
        assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])


def test_reset_cures_nan():
    state = OneField(torch.full((1, 2, 3), float("nan")))
    found = reset_state(state, torch.tensor([True, False]))
    assert torch.equal(found.hidden[:, 0], torch.zeros(1, 3))
    assert found.hidden[:, 1].isnan().all()


def test_mask_stands_for_lanes_even_when_lanes_equal_hidden_size():
    found = reset_state(OneField(torch.ones(1, 3, 3)), torch.tensor([True, False, False]))
    assert torch.equal(found.hidden[0], torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 1, 1]]))


def test_nothing_to_reset_gives_the_same_object():
    state = OneField(torch.ones(1, 2, 3))
    assert reset_state(state, torch.tensor([False, False])) is state


def test_detach_keeps_values_and_type_and_cuts_the_gradient():
    state = OneField(torch.ones(1, 2, 3, requires_grad=True) * 2)
    found = detach_state(state)
    assert isinstance(found, OneField)
    assert torch.equal(found.hidden, state.hidden)
    assert not found.hidden.requires_grad


def test_plain_tuples_are_states_too():
    assert detach_state((torch.ones(1, 2, 3),))[0].shape == (1, 2, 3)


def test_bad_starts():
    state = OneField(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match=r"`starts` must be bool.*Got dtype torch.int64"):
        reset_state(state, torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"each of the state's 2 lanes.*Got shape \(3,\)"):
        reset_state(state, torch.tensor([True, False, True]))
