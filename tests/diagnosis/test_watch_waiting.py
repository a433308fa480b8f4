"""Calls of cells that a model steps are looked at together: what is seen is what is seen one by one."""

import pytest
import torch
from support.loops import detached, train
from torch import nn
from torch.utils.checkpoint import checkpoint

from echo_torch import watch
from echo_torch.diagnosis.watching import waiting
from echo_torch.diagnosis.watching.gradients import Gradients


class Steps(nn.Module):
    """Two cells, stepped over (steps, rows, features); what stands between two steps is given."""

    def __init__(self, between=lambda model, hidden: hidden):
        super().__init__()
        torch.manual_seed(0)
        self.lower, self.upper = nn.GRUCell(3, 5), nn.GRUCell(5, 5)
        self.head, self.dropout = nn.Linear(5, 1), nn.Dropout(0.5)
        self.between = between

    def forward(self, chunk, state):
        lower, upper = state or (None, None)
        outputs = []
        for values in chunk:
            lower = self.lower(values, lower)
            upper = self.between(self, self.upper(lower, upper))
            outputs.append(upper)
        return self.head(torch.stack(outputs)), (lower, upper)


def hand_on(state):
    return tuple(map(detached, state))


def in_place(model, hidden):
    with torch.no_grad():
        hidden[0] = 0.5
    return hidden


def with_an_output_given(model, hidden):
    with torch.no_grad():
        torch.full((2, 5), 0.5, out=hidden)
    return hidden


def by_its_detached_view(model, hidden):
    hidden.detach()[0].fill_(0.5)
    return hidden


def by_numpy(model, hidden):
    hidden.detach().numpy()[0] = 0.5
    return hidden


def asked_without_gradients(model, hidden):
    with torch.no_grad():
        model.upper(torch.ones(2, 5), hidden)
    return hidden


def added_in_place(model, hidden):
    with torch.no_grad():
        hidden += 1
    return hidden


BETWEEN = {
    "nothing": lambda model, hidden: hidden,
    "a detached state": lambda model, hidden: hidden.detach(),
    "dropout": lambda model, hidden: model.dropout(hidden),
    "another order of rows": lambda model, hidden: hidden.flip(0),
    "a write in place": in_place,
    "an addition in place": added_in_place,
    "an output that is given": with_an_output_given,
    "a write into a view": by_its_detached_view,
    "a write by numpy": by_numpy,
    "a call without gradients": asked_without_gradients,
    "a recomputed function": lambda model, hidden: checkpoint(torch.tanh, hidden, use_reentrant=False),
}


GIVEN = {
    "a write in place": lambda given: given.fill_(0.5),
    "an item": lambda given: given.__setitem__(0, 0.5),
    "an addition": lambda given: given.__iadd__(0.5),
    "a result": lambda given: torch.full((2, 5), 0.5, out=given),
}


def recorded(seen):
    """All that is recorded, and what is said."""
    return [as_values(call) for call in seen._calls.calls], seen.lines(), seen.findings


def as_values(call):
    names = "number", "layer", "root", "trains", "num_rows", "is_step", "reached", "reached_before", "reaches_back"
    entering, standing = call.entering, call.standing
    state = (
        entering.is_given,
        entering.is_filled,
        [list(lanes) for lanes in entering.origins],
        list(entering.empty_lanes),
        entering.has_graph,
    )
    places = standing and (list(standing.first), list(standing.last))
    return [getattr(call, name) for name in names], state, entering.strange, call.padded, places


@pytest.mark.parametrize("name", BETWEEN)
def test_what_waits_is_seen_as_it_was_when_it_came(name, monkeypatch):
    chunks = torch.randn(40, 2, 3).split(10)

    def seen_by():
        torch.manual_seed(1)
        with watch() as seen:
            train(Steps(BETWEEN[name]), chunks, hand_on)
        return recorded(seen)

    together = seen_by()
    monkeypatch.setattr(waiting, "_MOST", 1)
    assert together == seen_by()
    assert len(together[0]) >= 80


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_model_was_given_is_seen_as_it_was(name, monkeypatch):
    """Its first state is known by more names than those that wait, so any write may be one into that."""
    chunks = torch.randn(40, 2, 3).split(10)

    def seen_by():
        state = torch.zeros(2, 5), torch.zeros(2, 5)
        with torch.no_grad(), watch() as seen:
            model = Steps(lambda model, hidden: (GIVEN[name](state[0]), hidden)[1])
            for chunk in chunks:
                _, left = model(chunk, state)
                state = tuple(map(torch.clone, left))
        return recorded(seen)

    together = seen_by()
    monkeypatch.setattr(waiting, "_MOST", 1)
    assert together == seen_by()


class Backward(Steps):
    """Goes back inside of its call, behind a step that nothing is made of."""

    def forward(self, chunk, state):
        lower, upper = state or (None, None)
        outputs = []
        for number, values in enumerate(chunk):
            lower = self.lower(values, lower)
            outputs.append(lower)
            if number == len(chunk) - 3:
                loss = self.head(lower).sum()
                self.lower(values, lower)
                loss.backward(retain_graph=True)
        return self.head(torch.stack(outputs)), (lower, upper)


def test_a_backward_pass_inside_of_a_model_comes_when_it_comes(monkeypatch):
    chunks = torch.randn(20, 2, 3).split(10)

    def seen_by():
        with watch() as seen:
            model, state = Backward(), None
            for chunk in chunks:
                output, (state, _) = model(chunk, (state, None) if state is not None else None)
                output.sum().backward(retain_graph=True)
                state = detached(state)
        return [(call.reached, call.reached_before, call.reaches_back) for call in seen._calls.calls], seen.lines()

    together = seen_by()
    assert {before for _, before, _ in together[0]} == {9, 11, 20, 22, None}
    monkeypatch.setattr(waiting, "_MOST", 1)
    assert together == seen_by()


@pytest.mark.parametrize("num_steps", [32, 33, 200])
def test_no_more_wait_than_a_few_dozen(num_steps):
    most = []

    def note(model, hidden):
        most.append(len(seen._calls.waiting.calls))
        return hidden

    with watch() as seen:
        train(Steps(note), [torch.randn(num_steps, 2, 3)], hand_on)
    assert len(seen._calls.calls) == 2 * num_steps
    assert max(most) == 62  # with the next two they are 64, which nobody lets wait


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_what_waits_is_seen_where_a_model_breaks_off(error):
    numbers = []

    def stop(model, hidden):
        numbers.append(len(seen._calls.calls))
        if len(numbers) == 4:
            raise error
        return hidden

    with pytest.raises(error), watch() as seen:
        train(Steps(stop), [torch.randn(6, 2, 3)], hand_on)
    assert numbers == [0, 0, 0, 0]  # all wait, until nobody comes any more
    assert len(seen._calls.calls) == 8
    assert seen._calls.waiting.calls == []


def test_what_a_layer_reads_of_another_that_waits_is_known():
    series = torch.randn(20, 2, 3)
    with watch() as seen:
        train(Steps(), series.split(5), hand_on)
    places = [call.standing.first for call in seen._calls.calls]
    assert places[::2] == places[1::2]
    assert seen.faults == []


def test_the_first_updates_end_where_they_end():
    """Calls wait inside of one call of the model alone, so no update comes between."""
    with watch(updates=2) as seen:
        train(Steps(), torch.randn(20, 2, 3).split(5), hand_on)
    assert [call.update for call in seen._calls.calls] == [0] * 10 + [1] * 10


def test_a_part_of_a_model_is_watched_alone():
    model, series = Steps(), torch.randn(20, 2, 3)
    with watch(model.upper) as seen:
        train(model, series.split(5), hand_on)
    assert len(seen._calls.calls) == 20
    assert all(call.standing is not None for call in seen._calls.calls)
    assert seen.faults == []


class Both(nn.Module):
    """A cell is stepped, and a layer reads the same; nothing is made of what they leave."""

    def __init__(self):
        super().__init__()
        self.cell, self.layer = nn.GRUCell(3, 5), nn.GRU(3, 5)

    def forward(self, chunk, state=None):
        steps = chunk.unbind(0)
        first = self.cell(steps[0])
        return self.layer(chunk), self.cell(steps[1], first)


def test_calls_stay_in_their_order():
    model, series = Both(), torch.randn(20, 2, 3)
    with watch() as seen:
        for chunk in series.split(5):
            model(chunk)
            assert seen._calls.waiting.calls == []
    assert [call.layer for call in seen._calls.calls] == [0, 1, 0] * 4
    assert [call.root for call in seen._calls.calls] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


class Chain(nn.Module):
    """A cell that is stepped over (steps, rows, features), and the outputs of some steps."""

    def __init__(self, kind=nn.GRUCell, turn=lambda number, outputs, state: state):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.turn = kind(3, 5), turn

    def forward(self, chunk, state, read):
        outputs = []
        for number, values in enumerate(chunk):
            state = self.cell(values, self.turn(number, outputs, state))
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack([outputs[number] for number in read]), state


def reached_by(reads, *options):
    """Of each call the update in which a gradient came back to it, and how many hooks there were after each one."""
    model, state, numbers = Chain(*options), None, []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch() as seen:
        for chunk, read in zip(torch.randn(6 * len(reads), 2, 3).split(6), reads, strict=True):
            optimizer.zero_grad()
            output, state = model(chunk, state, read)
            numbers.append(len(seen._calls.gradients))
            output.sum().backward()
            optimizer.step()
            state, output = detached(state), None
    reached = [call.reached for call in seen._calls.calls]
    return [reached[begin : begin + 6] for begin in range(0, len(reached), 6)], numbers


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("read", [[5], [0, 5], [0, 1, 2, 3, 4, 5]])
def test_gradients_that_come_to_the_last_step_have_gone_through_all(read, kind):
    reached, numbers = reached_by([read] * 8, kind)
    assert reached == [[number] * 6 for number in range(8)]
    assert numbers[-1] < numbers[0]


@pytest.mark.parametrize("read", [[0], [2], [0, 2, 4]])
def test_gradients_that_come_to_other_steps_are_seen_at_each(read):
    reached, _ = reached_by([read] * 8)
    assert reached == [[number] * (max(read) + 1) + [None] * (5 - max(read)) for number in range(8)]


@pytest.mark.parametrize(
    ("turn", "unreached"),
    [
        (lambda number, outputs, state: state if number != 3 else None, [0, 1, 2]),
        (lambda number, outputs, state: state if number != 3 else outputs[0], [1, 2]),
    ],
)
def test_no_gradients_come_to_steps_from_which_the_last_does_not_go_on(turn, unreached):
    reached, _ = reached_by([[5]] * 8, nn.GRUCell, turn)
    assert reached == [[None if step in unreached else number for step in range(6)] for number in range(8)]


def test_gradients_are_seen_at_each_step_again_where_they_stay_away_from_the_last():
    reached, _ = reached_by([[5]] * 5 + [[2]] * 3 + [[5]] * 2)
    assert reached[:5] == [[number] * 6 for number in range(5)]
    assert reached[5] == [5, *[None] * 5]  # of the others nothing is known, once
    assert reached[6:8] == [[number] * 3 + [None] * 3 for number in (6, 7)]
    assert reached[8:] == [[8] * 6, [9] * 6]


def test_no_tensor_is_held_after_a_fault_of_the_watch(monkeypatch, capsys):
    """The fault comes at the third of the calls that are looked at together."""
    listen, numbers = Gradients.listen, []

    def break_off(self, *given, **named):
        numbers.append(len(numbers))
        if len(numbers) == 3:
            raise KeyError("a fault")
        listen(self, *given, **named)

    monkeypatch.setattr(Gradients, "listen", break_off)
    with watch() as seen:
        train(Steps(), [torch.randn(6, 2, 3)], hand_on)
    assert isinstance(seen.fault, KeyError)
    assert seen._calls.gradients._left == []
    assert seen._calls.waiting.calls == []
    assert capsys.readouterr().err.count("\n") == 1
