"""What is said of the calls that were not watched, and of what would show them."""

import itertools

import pytest
import torch
from support.watched_models import Model, Stepped, chunks
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching import calls as calls_module
from echo_torch.diagnosis.watching import seen as seen_module

CHANGES = "only the calls around changes between training and evaluation were watched"
NOT_KNOWN = "so it is not known what the state does where the data begin anew later"


def play(model, number):
    """A state is carried, and nothing is learned, as while a replay is filled."""
    state = None
    for chunk in chunks(number):
        _, state = model(chunk, None if state is None else tuple(field.detach() for field in state))


def learn(model, number):
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for chunk in chunks(number):
        output, state = model(chunk, state)
        output.mean().backward()
        optimizer.step()
        state = tuple(field.detach() for field in state)


@pytest.mark.parametrize(
    ("played", "learned", "recorded", "said"),
    [
        (3, 4, 7, []),
        (9, 0, 5, [f"After the first 5 calls of the model {CHANGES}, {NOT_KNOWN}: more `updates` show it."]),
        (0, 9, 5, [f"After the first 5 updates {CHANGES}, {NOT_KNOWN}: more `updates` show it."]),
        (9, 4, 9, [f"Between the first 5 calls of the model and the first update {CHANGES}."]),
        (
            9,
            8,
            10,
            [
                f"Between the first 5 calls of the model and the first update {CHANGES}.",
                f"After the first 5 updates {CHANGES}, {NOT_KNOWN}: more `updates` show it.",
            ],
        ),
    ],
)
def test_calls_before_the_first_update_and_after_the_last_that_is_watched(played, learned, recorded, said):
    """With the first update all is watched again; the call before it is remembered."""
    model = Model()
    with watch(model, updates=5) as seen:
        play(model, played)
        learn(model, learned)
    assert [text for text in seen.unknown if "watched" in text] == said
    assert len(seen._calls.calls) == recorded


def test_one_call_and_one_update():
    model = Model()
    with watch(model, updates=1) as seen:
        play(model, 1)
        learn(model, 5)
        learn(model, 5)
    assert [text for text in seen.unknown if "watched" in text] == []  # no state was carried where all was watched
    with watch(model, updates=2) as seen:
        learn(model, 5)
    assert seen.unknown[-1].startswith(f"After the first 2 updates {CHANGES}")


def test_more_updates_show_no_more_than_can_be_recorded(monkeypatch):
    for module in (calls_module, seen_module):
        monkeypatch.setattr(module, "MOST_CALLS", 30)
    with watch(updates=1000) as seen:
        learn_cell(Stepped(), 40)
    most = "no more than 30 calls of layers are watched"
    assert seen.unknown[-1] == f"After the first 8 calls of the model {CHANGES}, {NOT_KNOWN}: {most}."


def learn_cell(model, number):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = torch.zeros(2, 5), torch.zeros(2, 5)
    for chunk in chunks(number):
        output, state = model(chunk, state)
        output.mean().backward()
        optimizer.step()
        state = tuple(field.detach() for field in state)


def test_a_layer_that_is_called_before_the_first_update_and_after_the_last():
    model, other = Model(), Model()
    with watch(updates=5) as seen:
        play(other, 9)
        learn(model, 5)
        play(other, 3)
    assert [text.split(" only ")[0] for text in seen.unknown if "watched" in text] == [
        "Between the first 5 calls of the model and the first update",
        "After the first 5 updates",
    ]


@pytest.mark.parametrize("evaluations", [1, 30])
@pytest.mark.parametrize(("passes", "said"), [(2, "a new pass"), (4, "3 new passes")])
def test_passes_that_were_watched_anyway_are_not_counted(passes, said, evaluations):
    """Many passes of an evaluation's loader, and half a pass of the training's, lie inside of the first updates."""
    model, state = Model(), None
    training = DataLoader(TensorDataset(torch.cat(list(chunks(16)))), batch_size=4)
    validation = DataLoader(TensorDataset(torch.cat(list(chunks(2)))), batch_size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, updates=8) as seen:
        for number, (chunk,) in enumerate(itertools.chain(*passes * [training])):
            output, state = model(chunk, state)
            output.mean().backward()
            optimizer.step()
            state = tuple(field.detach() for field in state)
            if number == 3:
                for (batch,) in itertools.chain(*evaluations * [validation]):
                    model(batch)
    assert seen.unknown[-1].startswith(
        f"After the first 8 updates only the calls around {said} of a loader were watched, and around"
    )
