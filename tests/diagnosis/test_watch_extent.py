"""How much is watched, and what is said of it."""

import contextlib
import copy

import pytest
import torch
from support.loops import Reader, detached, train
from support.watched_models import Model, Stepped, chunks, kinds, train_by_hand
from torch import nn
from torch._C import _len_torch_function_stack
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching import calls as calls_module
from echo_torch.diagnosis.watching import lanes as lanes_module


def test_the_first_updates_and_the_calls_around_a_change_of_mode():
    model = Model()
    with watch(model, updates=4) as seen:
        state = train(model, chunks(20))
        assert len(seen._calls.calls) == 4
        model.eval()
        with torch.no_grad():
            for batch in chunks(10):
                _, state = model(batch, state)
        model.train()
        train(model, chunks(20), state=state)
    assert kinds(seen) == [("validation-leak", "core", 1, 1)]
    assert len(seen._calls.calls) == 4 + 2 * 2


def test_after_a_step_that_fails_nothing_is_guessed():
    """No update is made, so what is read up to the next one is not followed."""

    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            if len(seen._calls.calls) == 3:
                raise ArithmeticError
            return super().step(closure)

    model, state = Model(), None
    with watch(model) as seen:
        optimizer = Failing(model.parameters(), lr=0.1)
        for batch in chunks(8):
            output, state = model(torch.stack(list(batch)), state)
            output.mean().backward()
            with contextlib.suppress(ArithmeticError):
                optimizer.step()
            state = detached(state)
        assert _len_torch_function_stack() == 1
    assert [call.standing is None for call in seen._calls.calls] == [number == 3 for number in range(8)]
    assert seen.faults == []
    assert _len_torch_function_stack() == 0


def test_a_sentence_that_is_true_of_many_layers_is_said_once():
    layers, learned = nn.ModuleList(nn.GRU(3, 3) for _ in range(5)), nn.Parameter(chunks()[0])
    with watch(layers) as seen:
        for layer in layers:
            layer(learned)
    sentences = [text for text in seen.unknown if "not known where the rows stand" in text]
    assert [text.split(": at ")[0] for text in sentences] == ["0, 1, 2 and 2 more layers"]


@pytest.mark.parametrize("is_nested", [False, True])
def test_when_all_is_watched_nothing_is_followed(is_nested):
    """A mode that was begun meanwhile must end first."""
    model = Model()
    with watch(model, updates=4) as seen:
        places = seen._calls.places
        with torch.device("cpu") if is_nested else contextlib.nullcontext():
            before = _len_torch_function_stack()
            state = train(model, chunks(3))
            assert not places.is_paused
            train(model, chunks(3), state=state)
            assert places.is_paused
            assert _len_torch_function_stack() == before - (not is_nested)
            torch.stack([chunks()[0]])
            assert not places._kept
    assert _len_torch_function_stack() == 0


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(calls_module, "MOST_CALLS", 30)
    monkeypatch.setattr(lanes_module, "_MOST_CALLS", 5)
    model = Stepped()
    with watch(model, updates=1000) as seen:
        train(model, chunks(40), state=(torch.zeros(2, 5), torch.zeros(2, 5)))
    assert len(seen._calls.calls) == 30
    assert len(seen._calls._lanes._calls) == 5
    assert len(seen._calls._lanes._origins) <= 5 * 2 * 2


def test_it_says_what_each_layer_begins_with():
    model = Model(nn.GRU)
    noise = torch.rand(1, 2, 5)
    with watch(model) as seen:
        state = train(model, chunks(4), torch.Tensor.detach)
        train(model, chunks(1), torch.Tensor.detach, state=noise)
        train(model, chunks(1), torch.Tensor.detach, state=torch.zeros(1, 2, 5))
    assert state is not None
    assert seen.lines() == [
        "core is called 6 times in training: 3 with what an earlier call left, 2 without a state, 1 with one that no "
        "call has left.",
        "No fault was seen.",
        "unknown: core: at 1 of 6 beginnings the state is none that a call has left.",
    ]
    assert seen.findings == {"findings": [], "unknown": seen.unknown}


def test_a_cell_that_is_stepped_begins_once_a_chunk():
    with watch() as seen:
        train(Stepped(), chunks(3), state=detached((torch.ones(2, 5), torch.ones(2, 5))))
    assert len(seen._calls.calls) == 3 * 4
    assert seen.lines()[0].startswith("cell begins 3 times in training: 2 with what an earlier call left, 1 with one")


@pytest.mark.parametrize("write", [False, True])
def test_a_copy_is_known_again_after_a_rest(write):
    """Its rows stand where those stood of which it was made; written to meanwhile, they stand nobody knows where."""
    rows, steps = 3, 4
    series = torch.randn(rows * 10 * steps, 3)
    model, state = Reader(batch_first=True), None
    with watch(updates=12) as seen:
        data = series.view(rows, 10, steps, 3).transpose(0, 1).reshape(-1, steps, 3)
        loader = DataLoader(TensorDataset(data), batch_size=rows)
        for epoch in range(4):
            for number, (batch,) in enumerate(loader):
                state = train(model, [batch], state=state if number else None)
                if write and (epoch, number) == (1, 5):  # nobody looks then
                    data.add_(0.1)
    assert kinds(seen) == []
    assert any("hand-overs it is not known" in sentence for sentence in seen.unknown) == write


def test_names_and_layers_that_are_not_asked_about():
    model, other = Model(nn.GRU), Model(nn.GRU)
    with watch(model) as seen:
        train(other, chunks(), torch.Tensor.detach)
    assert seen.lines() == ["No fault was seen.", f"unknown: {seen.unknown[0]}"]
    assert seen.unknown == ["No recurrent layer of torch.nn was called, so nothing is known of any state."]
    with watch() as seen:
        train_by_hand(model, chunks(), lambda state: state)
    assert kinds(seen) == [("not-detached", "core", 5, 5)]
    assert seen.findings["findings"][0]["sentence"].startswith("In 5 of 5 updates a gradient goes through the state")


def test_of_a_layer_whose_calls_came_too_late_nothing_is_said():
    """As of a model that is loaded anew for a last evaluation."""
    model = Model()
    with watch(updates=2) as seen:
        train(model, chunks(3))
        copy.deepcopy(model).eval()(chunks()[0])
    assert [line.split(" is called ")[0] for line in seen.lines() if " is called " in line] == ["core"]


def test_where_nothing_is_followed_nothing_is_said_of_places():
    """As in an evaluation after the first updates."""
    model, rows = Reader(nn.LSTM, symbols=9), torch.randint(9, (300, 4))
    with watch(updates=5) as seen:
        train(model, rows.split(30))
        model.eval()
        with torch.no_grad():
            state = None
            for chunk in rows.split(30):
                _, state = model(chunk, state)
    assert seen.faults == []
    evaluated = [call for call in seen._calls.calls if not call.is_training]
    assert [call.standing for call in evaluated if not call.is_remembered] == [None]


def test_a_loss_is_no_call_of_the_model():
    """Without an optimiser so many calls of the model are watched."""
    model, loss, state = Model(), nn.MSELoss(), None
    with watch(updates=4) as seen:
        for batch in chunks(6):
            output, state = model(batch, state)
            loss(output, torch.zeros_like(output)).backward()
            state = detached(state)
    assert len(seen._calls.calls) == 4
