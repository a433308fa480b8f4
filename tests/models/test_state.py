from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from echo_torch import EchoModule, LSTMState, detach_state, evaluate, reset_state
from echo_torch.models.state import HiddenState, StateForm, names_of


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


# --- which axis counts the lanes ------------------------------------------------------------------------------------


def test_the_lanes_of_a_cache_are_found_where_another_axis_is_as_long():
    """A cache of rank 4 with as many heads as lanes; without its `initial_state` it is refused, never guessed."""
    state, starts = torch.ones(3, 3, 3, 3), torch.tensor([True, False, False])
    found = reset_state(state, starts, lambda lanes: torch.zeros(lanes, 3, 3, 3))
    assert found.sum(dim=(1, 2, 3)).tolist() == [0, 27, 27]
    found = reset_state(state, starts, lambda lanes: torch.zeros(3, 3, lanes, 3))
    assert found.sum(dim=(0, 1, 3)).tolist() == [0, 27, 27]
    with pytest.raises(ValueError, match=r"`state` must say which axis counts its lanes.*give `model.initial_state`"):
        reset_state(state, starts)


@pytest.mark.parametrize("shape", [(3, 3, 4), (3, 4), (3,), (1, 3, 4, 2), (3, 3, 3)])
def test_without_initial_state_a_shape_that_can_be_read_two_ways_is_refused(shape):
    with pytest.raises(ValueError, match=r"`state` must say which axis counts its lanes.*Got shape \(3,\), and state"):
        reset_state(torch.ones(shape), torch.tensor([True, False, False]))


def test_this_projects_states_say_it_by_their_type():
    found = reset_state(HiddenState(torch.ones(3, 3, 3)), torch.tensor([True, False, False]))
    assert found.hidden.sum(dim=(0, 2)).tolist() == [0, 9, 9]


@pytest.mark.parametrize(
    ("initial_state", "words"),
    [
        (
            lambda n: torch.zeros(n, n),
            r"several could be it. Got state of shape \(2, 2\) for 2 lanes and \(3, 3\) for 3",
        ),
        (lambda n: torch.zeros(4 * n, 2), "`initial_state` must give the lanes an axis of their own"),
        (lambda n: torch.zeros([1] * n), "tensors of the same rank for any number of lanes"),
        (lambda n: [torch.zeros(4)] * n, r"must nest its tensors alike.*state\[0\], state\[1\] for 2 lanes"),
        (lambda n: {"h": "text"}, "`state` must be a tensor, or tuples, lists and dicts of tensors.*Got str"),
    ],
)
def test_what_is_ambiguous_is_refused_in_a_sentence(initial_state, words):
    with pytest.raises(ValueError, match=words):
        _ = StateForm(initial_state).lane_axes


def test_the_axes_can_be_given():
    form = StateForm(lambda n: {"square": torch.zeros(n, n), "h": torch.zeros(1, n)}, {"square": 1, "h": -1})
    assert form.lane_axes == (1, 1)  # h, square: in the order of the names
    assert StateForm(lambda n: (torch.zeros(n, 2), torch.zeros(n, 3)), 0).lane_axes == (0, 0)
    assert StateForm(lambda n: (torch.zeros(n, 2), torch.zeros(5)), (0, None)).lane_axes == (0, None)
    for wrong in (2, {"square": 0, "h": 0}, {"square": 0}, "rows"):
        with pytest.raises(ValueError, match=r"`lane_axes` must|`state` must be a tensor"):
            _ = StateForm(lambda n: {"square": torch.zeros(n, n), "h": torch.zeros(1, n)}, wrong).lane_axes


def test_a_tensor_without_lanes_is_carried_whole_and_not_reset_for_some():
    def initial_state(lanes):
        return {"h": torch.zeros(lanes, 2), "clock": torch.zeros(4)}

    state = {"h": torch.ones(3, 2), "clock": torch.ones(4)}
    assert reset_state(state, torch.tensor([False] * 3), initial_state) is state
    found = reset_state(state, torch.tensor([True] * 3), initial_state)
    assert found["clock"].tolist() == [0] * 4
    with pytest.raises(ValueError, match=r"must reset all lanes or none: state\['clock'\] has no axis for lanes"):
        reset_state(state, torch.tensor([True, False, False]), initial_state)


def test_nestings_keep_their_types():
    state = OrderedDict(b=[torch.ones(2, 1), (None, 3)], a=OneField(torch.ones(2, 1) * 2))
    found = reset_state(
        state,
        torch.tensor([True, False]),
        lambda n: {"b": [torch.zeros(n, 1), (None, 4)], "a": OneField(torch.zeros(n, 1))},
    )
    assert type(found) is OrderedDict
    assert list(found) == ["b", "a"]
    assert type(found["a"]) is OneField
    assert found["b"][1] == (None, 3)
    assert found["a"].hidden.tolist() == [[0], [2]]
    assert type(detach_state([torch.ones(1)])) is list
    assert detach_state(None) is None
    assert names_of(state) == ["state['a'].hidden", "state['b'][0]", "state['b'][1][0]", "state['b'][1][1]"]


def test_a_reset_keeps_the_type_of_the_numbers():
    """A state that mixed precision has made shorter stays so."""
    found = reset_state(
        torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor([True, False]), lambda n: torch.zeros(n, 3)
    )
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize("use", [EchoModule, lambda model: evaluate(model, [])])
def test_a_model_without_a_first_state_is_refused(use):
    with pytest.raises(
        ValueError, match=r"`model` must have a method initial_state\(num_lanes\).*Got GRU; for nn.GRU's"
    ):
        list(use(torch.nn.GRU(2, 3)))
