"""What a watch does only where somebody asks, or not at all: the answers are those of doing all of it."""

import numpy as np
import pytest
import torch
from support.loops import detached
from torch import nn
from torch._C import DisableTorchFunction, _len_torch_function_stack
from torch.nn.utils.rnn import pad_sequence

from echo_torch import watch
from echo_torch.diagnosis.watching import lanes as lanes_module
from echo_torch.diagnosis.watching.arrays import ARRAY, FILLED, Arrays
from echo_torch.diagnosis.watching.lanes import Lanes, Origin, Rows
from echo_torch.diagnosis.watching.lasting import LastingArrays
from echo_torch.diagnosis.watching.regular import Later, as_regular, is_regular, regular, written_out
from echo_torch.diagnosis.watching.standing import Even, Standing, Steps, Uneven, standing_later

VIEWS = {
    "select": lambda x: x[3],
    "slice": lambda x: x[1:7:2, :, 1:],
    "transpose": lambda x: x.transpose(0, 2),
    "permute": lambda x: x.permute(1, 2, 0),
    "unbind": lambda x: x.unbind(1)[2],
    "split": lambda x: x.split(3)[1],
    "unfold": lambda x: x.unfold(0, 4, 2),
    "flatten": lambda x: x.flatten(1),
    "expand": lambda x: x[:, :1].expand(8, 5, 4),
    "stack": lambda x: torch.stack([x[2], x[0], x[1]], 1),
    "relu of a stack": lambda x: torch.relu(torch.stack(x.unbind(0)[::2])),
}
COPIES = {
    "reshape": lambda x: x.transpose(0, 1).reshape(5, -1),
    "flatten": lambda x: x.transpose(0, 1).flatten(),
    "indices": lambda x: x[torch.tensor([3, 1])],
    "a mask": lambda x: x[torch.arange(8) % 3 == 0],
    "a list": lambda x: x[[5, 2]],
    "cat": lambda x: torch.cat([x[4:], x[:2]]),
    "flip": lambda x: x.flip(0),
}


def places_of(function, whole):
    with watch() as seen:
        result = function(whole)
        places = seen._calls.places
        return places.where(result), places.of(result) % ARRAY


@pytest.mark.parametrize("name", VIEWS)
def test_places_of_views_take_no_memory(name):
    whole = torch.arange(160.0).view(8, 5, 4)
    places, told = places_of(VIEWS[name], whole)
    assert places.is_meta == ("stack" not in name)
    assert torch.equal(told, VIEWS[name](whole).long())


def test_single_values_tell_themselves_where_they_stand():
    """Lengths are often taken apart; nothing is kept of each of them."""
    whole = torch.arange(6.0)
    with watch() as seen:
        values, places = whole.unbind(), seen._calls.places
        assert not any(id(value) in places._kept for value in values)
        assert [int(places.of(value)) % ARRAY for value in values] == list(range(6))


@pytest.mark.parametrize("name", COPIES)
def test_places_of_copies_are_written_out(name):
    whole = torch.arange(160.0).view(8, 5, 4)
    places, told = places_of(COPIES[name], whole)
    assert not places.is_meta
    assert torch.equal(told, COPIES[name](whole).long())


@pytest.mark.parametrize("strides", [(2**40, 3, 1), (1, 2**40, 7), (2**17, 0, 2**18), (1000, 90, 2**33)])
def test_places_far_apart_are_written_out_one_by_one(strides):
    """Without the memory of all that lies between."""
    one_by_one = [[[5 + i * strides[0] + j * strides[1] + k * strides[2] for k in range(2)] for j in range(4)]
                  for i in range(3)]  # fmt: skip
    found = written_out(regular((3, 4, 2), strides, 5))
    assert found.tolist() == one_by_one
    assert found.stride(1) == 0 or strides[1]


REGULAR = {
    "strides": ((2, 3), (10, 1), 5),
    "columns": ((4, 3), (1, 4), 0),
    "one of an axis": ((1, 3, 1), (1, 2, 1), 7),
    "far apart": ((2, 2), (2**40, 3), 2**41),
    "a single one": ((), (), 9),
}


@pytest.mark.parametrize("name", REGULAR)
def test_regular_places_are_known_again(name):
    expected = regular(*REGULAR[name])
    found = as_regular(written_out(expected))
    assert (found.shape, found.stride(), found.storage_offset()) == (
        expected.shape, expected.stride(), expected.storage_offset()
    )  # fmt: skip
    assert is_regular(found)


@pytest.mark.parametrize("places", [[5, 6, 9], [9, 6, 3], [[5, 6], [8, 10]], [5, 5, 5], []])
def test_other_places_are_not_regular(places):
    assert as_regular(torch.tensor(places, dtype=torch.int64)) is None


PADDED = {
    "values": lambda x: [x[0, 0], x[3, 1, 1:], x[5, 2, :2]],
    "vectors": lambda x: [x[0], x[3, 1:], x[5, :2]],
    "vectors of a copy that is spread": lambda x: [row[:, :1].expand(-1, 3) for row in (x[0], x[2, 3:])],
    "steps far apart": lambda x: [x[:, 0, 1], x[2:, 3, 0], x[:1, 1, 1]],
    "matrices": lambda x: [x[:3], x[4:5], x],
    "rows of several strides": lambda x: [x[0, 0, ::2], x[1, 1]],
    "one alone": lambda x: [x[6]],
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("is_batch_first", [True, False])
@pytest.mark.parametrize("name", PADDED)
def test_places_are_padded_as_the_values_are(name, is_batch_first, side):
    def padded(x):
        return pad_sequence(PADDED[name](x), batch_first=is_batch_first, padding_value=-1, padding_side=side)

    whole = torch.arange(160.0).view(8, 5, 4)
    with watch() as seen:
        result = padded(whole)
        places = seen._calls.places.of(result)
    values = padded(whole).long()
    is_filled = values == -1
    assert torch.equal(places == FILLED, is_filled)
    assert torch.equal(places[~is_filled] % ARRAY, values[~is_filled])


def test_padded_sequences_stand_where_what_was_written_into_them_stands():
    whole = torch.arange(20.0)
    with watch() as seen:
        rows = [torch.zeros(3), torch.zeros(2)]
        for row, begin in zip(rows, (4, 11), strict=True):
            row.copy_(whole[begin : begin + len(row)])
        places = seen._calls.places.of(pad_sequence(rows))
    assert (places % ARRAY).tolist() == [[4, 11], [5, 12], [6, FILLED]]


def test_where_padded_rows_stand_is_told_when_somebody_asks():
    places = torch.arange(12).view(2, 6) + ARRAY
    whole = standing_later(Steps(places, 1), Arrays())
    places[1, 4:] = FILLED
    later = standing_later(Steps(places, 1), Arrays())
    assert isinstance(whole, Standing)
    assert isinstance(later, Uneven)
    assert later.first == later.standing().first == [ARRAY, ARRAY + 6]
    assert later.standing().last == [ARRAY + 5, ARRAY + 9]


@pytest.mark.parametrize("strides", [(7, 3), (0, 2), (3, 0), (70_000, 1)])
def test_places_are_written_out_as_their_strides_say(strides):
    places = regular((3, 4), strides, 5)
    assert is_regular(places[1:])
    assert not is_regular(places.clone())
    assert written_out(places).tolist() == [[5 + strides[0] * i + strides[1] * j for j in range(4)] for i in range(3)]


def test_what_is_asked_for_later_is_found_once():
    found = []
    later = Later(lambda: found.append(1) or torch.tensor(4))
    assert not found
    assert later() is later()
    assert found == [1]


def origins(lanes, layer, field, state, axis=0):
    return list(lanes.origins(layer, Rows(state, axis), field))


def test_a_state_enters_as_it_was_left_or_lane_by_lane():
    lanes, left = Lanes(), torch.randn(3, 4)
    left[1] = 0
    lanes.leave(7, [Rows(left, 0)])
    assert origins(lanes, 7, 0, left) == [Origin(0, 0, 0), None, Origin(0, 0, 2)]
    assert lanes._origins == {}, "a state that enters whole is not cut into lanes"
    assert origins(lanes, 7, 0, left[[2, 1, 0]]) == [Origin(0, 0, 2), None, Origin(0, 0, 0)]
    lanes.leave(8, [Rows(left, 0)])
    assert origins(lanes, 7, 0, left)[0] == Origin(0, 0, 0), "of its own layer, although another left the same later"
    assert origins(lanes, 8, 0, left)[0] == Origin(1, 0, 0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lanes_of_a_state(axis, dtype):
    state = torch.randn(2, 3, 4).to(dtype)
    rows = Rows(state, axis)
    numbers = state.view(torch.int16).numpy() if dtype is torch.bfloat16 else state.numpy()
    assert list(rows) == [np.ascontiguousarray(lane).tobytes() for lane in np.moveaxis(numbers, axis, 0)]
    assert torch.equal(rows.tensor(), state)


def test_lanes_are_empty_only_where_all_is_zero():
    state = torch.zeros(5, 4)
    state[1, 2], state[2, 3], state[3] = 1.0, 2.0, -0.0
    assert Rows(state, 0).empty == [0, 3, 4]


@pytest.mark.parametrize("change", [lambda state: state.data.mul_(2), lambda state: state.detach().numpy().fill(3)])
def test_a_state_that_was_written_into_unseen_is_another(change):
    state = torch.randn(2, 3)
    rows = Rows(state, 0)
    assert rows.is_still(state)
    assert rows.is_still(state.detach())
    assert not rows.is_still(state.clone())
    change(state)
    assert not rows.is_still(state)


def test_no_memory_is_held_but_that_of_the_last_state_of_a_layer():
    lanes, rows = Lanes(), [Rows(torch.randn(2, 3), 0) for _ in range(4)]
    for layer, each in zip((1, 2, 1, 1), rows, strict=True):
        lanes.leave(layer, [each])
    assert [each._memory is None for each in rows] == [True, False, True, False]
    lanes.release()
    assert all(each._memory is None for each in rows)


class Stacked(nn.Module):
    """Two layers, one upon the other."""

    def __init__(self):
        super().__init__()
        self.lower, self.upper = nn.LSTM(3, 4, batch_first=True), nn.GRU(4, 2, batch_first=True)

    def forward(self, values, states):
        features, lower = self.lower(values, states[0])
        return self.upper(torch.relu(features), states[1])[1], lower


def standings(prepare):
    torch.manual_seed(0)
    series, model, states = torch.randn(2, 40, 3), Stacked(), (None, None)
    prepare(model)
    with watch(model) as seen:
        for chunk in series.split(8, dim=1):
            upper, lower = model(chunk, states)
            states = detached(lower), detached(upper)
    where = [call.standing for call in seen._calls.calls]
    return [[place % ARRAY for place in (*one.first, *one.last)] for one in where], seen.lines()


def test_what_is_not_followed_inside_a_layer_is_known_all_the_same():
    def prepare(model):
        for layer in (model.lower, model.upper):
            layer.register_forward_pre_hook(lambda *given: None)  # then somebody may do something to what it reads

    aside, followed = standings(lambda model: None), standings(prepare)
    assert aside == followed
    assert len(aside[0]) == 10


def test_a_layer_that_raises_leaves_everything_followed():
    layer, series = nn.GRU(3, 4), torch.randn(20, 2, 3)
    with watch() as seen:
        with pytest.raises(RuntimeError):
            layer(series[:, :, :2])
        assert _len_torch_function_stack() == 1
        copied = torch.cat([series[4:8], series[:4]], 1)
        layer(copied)
    assert seen._calls.calls[-1].standing is not None


def test_a_module_of_torch_that_raises_inside_of_another_leaves_the_depth_as_it_was():
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.0), nn.Linear(3, 3)), nn.GRU(3, 4))
    series = torch.randn(20, 2, 3)
    with watch() as seen:
        with pytest.raises(RuntimeError):
            model(torch.randn(5, 2, 4))
        for chunk in series.split(5):
            model(chunk)
            assert seen._calls._depth == 0
    assert [call.root for call in seen._calls.calls] == [2, 3, 4, 5]
    assert [call.standing.first[0] % ARRAY for call in seen._calls.calls] == [0, 30, 60, 90]
    assert seen._calls.roots == [model]
    with watch(updates=2) as seen:
        for chunk in series.split(5):
            model(chunk)
    assert len(seen._calls.calls) == 2


def test_hooks_of_tensors_that_are_gone_are_dropped():
    layer, series = nn.GRU(3, 4), torch.randn(80, 2, 3)
    optimizer, numbers = torch.optim.SGD(layer.parameters(), lr=0.1), []
    with watch() as seen:
        for chunk in series.split(4):
            optimizer.zero_grad()
            layer(chunk)[0].sum().backward()
            optimizer.step()
            numbers.append(len(seen._calls.gradients))
    assert len(set(numbers)) == 1


def test_an_origin_is_of_the_same_layer_if_possible_and_not_forgotten(monkeypatch):
    monkeypatch.setattr(lanes_module, "_MOST_CALLS", 3)
    lanes, left = Lanes(), torch.randn(2, 4)
    for layer, state in ((7, left), (8, left), (7, torch.randn(2, 4))):
        lanes.leave(layer, [Rows(state, 0)])
    assert origins(lanes, 7, 0, left) == [Origin(0, 0, 0), Origin(0, 0, 1)]
    lanes.leave(8, [Rows(torch.randn(2, 4), 0)])
    assert origins(lanes, 7, 0, left) == [Origin(1, 0, 0), Origin(1, 0, 1)]
    last = torch.randn(2, 4)
    lanes.leave(9, [Rows(last, 0)])
    for _ in range(3):
        lanes.leave(8, [Rows(torch.randn(2, 4), 0)])
    assert origins(lanes, 9, 0, last) == [None, None]
    assert len(lanes._origins) <= 3 * 2


def test_what_a_hook_does_to_the_input_of_a_layer_is_followed():
    def prepare(model):
        model.lower.register_forward_pre_hook(lambda layer, given: (given[0].clone(), *given[1:]))

    assert standings(prepare) == standings(lambda model: None)


def test_pieces_of_a_stack_are_noted_without_its_places():
    series = torch.randn(12, 5, 2)
    with watch() as seen:
        stacked = torch.stack(series.unbind(0)[3:5])
        outputs = nn.functional.linear(torch.relu(stacked), torch.randn(3, 2))
        pieces = seen._calls.places.layouts.pieces
        assert isinstance(seen._calls.places._kept[id(outputs)][1], Later)
        with DisableTorchFunction():
            told = seen._calls.places.of(outputs)[:, :, 2] % ARRAY
    assert told.tolist() == [[30, 32, 34, 36, 38], [40, 42, 44, 46, 48]]
    assert {(first % ARRAY, last % ARRAY, length) for first, last, length in pieces} == {(30, 38, 5), (40, 48, 5)}


def test_arrays_last_as_well_where_each_call_is_noted_but_once():
    arrays = Arrays()
    whole = torch.randn(40, 3, 2), torch.randn(20, 3, 2)
    quick, slow = LastingArrays(arrays), LastingArrays(arrays)
    for now, begins in enumerate([(0, 1, 2), (3, 3), (0,), (4, 5), (6,), (), (), (7,), (8,)]):
        for begin in begins:
            even = Even(arrays.places_of(whole[begin % 2][begin]), False)
            quick.note_even(even, now)
            slow.note(list(even.standing().first), now)
            read = [{array: each[::2] for array, each in one._read.items()} for one in (quick, slow)]
            assert read[0] == read[1]
            assert quick.numbers == slow.numbers
    assert quick.numbers


def test_steps_that_stand_at_one_place_tell_nothing():
    with watch() as seen:
        nn.GRU(3, 4)(torch.randn(1, 2, 3).expand(5, 2, 3))
    assert seen._calls.calls[0].standing is None


def test_padding_of_a_matrix_that_holds_it_is_certain():
    words = torch.randint(1, 9, (6, 5))
    words[0, 3:], words[4, 2:] = 0, 0
    embedding, layer = nn.Embedding(9, 3, padding_idx=0), nn.GRU(3, 4, batch_first=True)
    with watch() as seen:
        for _ in range(2):
            nn.Sequential(embedding, layer)(words)[0].sum().backward()
    padded = seen._calls.calls[1].padded
    assert (padded.runs, padded.symbol, padded.is_to_longest) == ([2, 0, 0, 0, 3, 0], None, False)
