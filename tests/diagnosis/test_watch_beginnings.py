"""How often a layer begins: each call does, but for the steps inside a call of the whole model."""

import itertools

import pytest
import torch
from support.loops import detached, fit
from support.watched_models import Stepped, chunks, kinds
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch


class Parts(nn.Module):
    """Reads each part of a sample by one layer; `begin` says with which state, given the states of the parts before."""

    def __init__(self, begin=lambda model, left: None, options=()):
        super().__init__()
        torch.manual_seed(0)
        self.core, self.context = nn.GRU(3, 5, **dict(options)), nn.GRUCell(5, 5)
        self.first, self.begin = nn.Parameter(torch.randn(1, 1, 5)), begin

    def forward(self, parts):
        outputs, left = [], []
        for part in parts:
            output, state = self.core(part, self.begin(self, left))
            outputs.append(output.flatten())
            left.append(state)
        return torch.cat(outputs)


def samples(number=4, parts=3):
    return [list(chunks(parts, steps=4 + sample)) for sample in range(number)]


def learned(model, left):
    return model.first.expand(1, 2, 5).contiguous()


def of_another_layer(model, left):
    before = left[-1][0] if left else torch.ones(2, 5)
    return model.context(before.detach())[None]


def left_before(model, left):
    return left[-1] if left else None


def changed(model, left):
    return left[-1] * model.first if left else None


def multiplied(model, left):
    return left[-1].detach() * 0.5 if left else None


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (lambda model, left: None, "is called 12 times in training: 12 without a state."),
        (learned, "is called 12 times in training: 12 with one that the model has made."),
        (of_another_layer, "is called 12 times in training: 12 with what an earlier call left."),
        (
            lambda model, left: torch.randn(1, 2, 5),
            "is called 12 times in training: 12 with one that no call has left.",
        ),
        (left_before, "begins 4 times in training: 4 without a state."),
        (changed, "begins 4 times in training: 4 without a state."),
        (multiplied, "begins 4 times in training: 4 without a state."),
    ],
    ids=["none", "learned", "of another layer", "drawn", "left before", "changed", "multiplied"],
)
def test_calls_inside_a_call_of_the_model(begin, said):
    model = Parts(begin)
    with watch() as seen:
        fit(model, samples())
    assert len([call for call in seen._calls.calls if seen.layers[call.layer] == "core"]) == 12
    assert f"core {said}" in seen.lines()


def test_a_learned_state_for_other_numbers_of_rows():
    """It is known again, however often the model repeats it."""
    model = Parts(lambda model, left: model.first.expand(1, 2 + len(left), 5).contiguous())
    with watch() as seen:
        fit(model, [[torch.randn(4, rows, 3) for rows in (2, 3, 4)] for _ in range(4)])
    assert "core is called 12 times in training: 12 with one that the model has made." in seen.lines()


def test_a_state_for_each_of_several_streams():
    """Each begins once in each call of the model, where it stopped in the call before."""
    model, kept = Parts(), {}
    model.begin = lambda model, left: kept.get(len(left))
    with watch() as seen:
        for number, sample in enumerate(samples()):
            for each, part in enumerate(sample):
                kept[each] = model.core(part)[1].detach() if not number else kept[each]
            fit(model, [sample])
    assert (
        seen.lines()[0] == "core is called 15 times in training: 12 with what an earlier call left, 3 without a state."
    )


def test_how_many_beginnings_there_are_of_which_it_is_not_known_where_their_rows_stand():
    """Two parts of a sample that stand nobody knows where, and one that is changed on the way."""
    model = Parts(lambda model, left: left[-1] * model.first if len(left) == 2 else None)
    with watch() as seen:
        fit(model, [[nn.Parameter(part) for part in sample] for sample in samples()])
    assert seen.lines()[0] == "core begins 8 times in training: 8 without a state."
    assert seen.unknown[0].startswith("core: at 8 of 8 beginnings it is not known where the rows stand in the data")


def test_a_cell_of_which_an_evaluation_changes_the_states():
    """Without a graph nothing tells what they are made of: they are taken for steps."""
    model = Stepped(lambda state: (state[0] * 0.9, state[1] * 0.9)).eval()
    with watch() as seen, torch.no_grad():
        for chunk in chunks(3):
            model(chunk, (torch.zeros(2, 5), torch.zeros(2, 5)))
    assert seen.lines()[0] == "cell begins 3 times in evaluation: 3 without a state."
    assert not any("none that a call has left" in text for text in seen.unknown)


def test_what_is_remembered_of_calls_that_were_not_watched_is_no_step():
    """The second of two streams begins a new pass where its state stopped, in a call before that was not watched."""
    model, kept = Parts(lambda model, left: kept.get(len(left))), {}
    model.core.register_forward_hook(lambda layer, given, output: left.append(output[1].detach()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.randn(9, 2, 4, 2, 3)), batch_size=None)
    with watch(updates=3) as seen:
        for sample in itertools.chain(loader, loader):
            left = []
            model(sample[0]).mean().backward()
            optimizer.step()
            kept.update(enumerate(left))
    watched = [call for call in seen._calls.calls if not call.is_remembered]
    assert len(watched) < len(seen._calls.calls) < 2 * 2 * 9
    assert seen.lines()[0].startswith(f"core is called {len(watched)} times in training: ")


def test_a_foreign_state_is_counted_among_the_same_beginnings():
    """The mean of the rows enters both parts of a sample."""
    kept = []

    def mean(model, left):
        return kept[-1].mean(1, keepdim=True).expand(1, 2, 5).contiguous() if kept and not left else None

    model = Parts(mean)
    with watch() as seen:
        for sample in samples():
            fit(model, [sample])
            kept.append(detached(model.core(sample[-1])[1]))
    assert [(kind, count, of) for kind, _, count, of in kinds(seen)] == [("foreign-state", 3, 16)]
    assert seen.lines()[0].startswith("core is called 16 times in training: ")


class Translator(nn.Module):
    """An encoder, and a decoder that is stepped."""

    def __init__(self, hand_on):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.bridge, self.decoder, self.hand_on = nn.GRU(3, 5), nn.Linear(5, 5), nn.GRU(3, 5), hand_on

    def forward(self, read, written, *, is_bridged):
        first = state = self.bridge(self.encoder(read)[1]) if is_bridged else self.encoder(read)[1]
        outputs = []
        for step in written:
            output, left = self.decoder(step[None], state)
            outputs.append(output)
            state = self.hand_on(first, left)
        return torch.cat(outputs)


@pytest.mark.parametrize("is_bridged", [False, True])
@pytest.mark.parametrize(
    ("hand_on", "steps", "count"),
    [
        (lambda first, left: first, 6, 8 * 5),
        (lambda first, left: first, 3, 0),  # few of them are candidates
        (lambda first, left: left, 6, 0),
    ],
)
def test_steps_that_all_begin_with_one_state(hand_on, steps, count, is_bridged):
    """A search looks so, and a decoder that forgets what it has left; which of them it is cannot be known."""
    torch.manual_seed(0)
    model = Translator(hand_on)
    with watch(model) as seen:
        for _ in range(8):
            model(torch.randn(7, 4, 3), torch.randn(steps, 4, 3), is_bridged=is_bridged).square().mean().backward()
    assert seen.faults == []
    said = [text for text in seen.unknown if "tries several steps" in text]
    assert len(said) == bool(count)
    assert not count or f"decoder: at {count} single steps" in said[0]
    assert not any("nothing is handed over" in line for line in seen.lines())


@pytest.mark.parametrize(("bidirectional", "hands_on", "number"), [(True, True, 1), (False, True, 0), (True, False, 0)])
def test_a_backward_direction_that_goes_on_is_said(bidirectional, hands_on, number):
    layer, state = nn.GRU(3, 5, bidirectional=bidirectional), None
    with watch(layer) as seen:
        for chunk in torch.randn(40, 4, 3).split(10):
            output, state = layer(chunk, state)
            output.mean().backward()
            state = state.detach() if hands_on else None
    assert sum("at 3 of 4 beginnings the state of its backward direction" in text for text in seen.unknown) == number


def test_a_backward_direction_that_begins_with_an_encoders_state_does_not_go_on():
    encoder, decoder = (nn.GRU(3, 5, bidirectional=True) for _ in range(2))
    with watch() as seen:
        for _ in range(4):
            decoder(torch.randn(6, 4, 3), encoder(torch.randn(6, 4, 3))[1])[0].mean().backward()
    assert seen.unknown == []
