"""What was seen by `watch` as reach and horizon: the same as `reach` says of the positions that were read."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from support.loops import detached
from torch import nn

from echo_torch import Stamps, reach, watch
from echo_torch.errors import RuleError

ROWS, STEPS = 3, 4
WHOLE = torch.randn(ROWS, 60, 2, generator=torch.Generator().manual_seed(1))


def lstm(**options):
    torch.manual_seed(0)
    return nn.LSTM(2, 5, batch_first=True, **options)


def read(model, begins, hand_on=detached, rows=range(ROWS), steps=STEPS):
    """The calls of a loop that reads views of `WHOLE`, from these steps on."""
    state = None
    for begin in begins:
        _, state = model(WHOLE[list(rows) if rows != range(ROWS) else slice(None), begin : begin + steps], state)
        state = hand_on(state)


def expected_of(begins, starts=(), steps=STEPS, **options):
    at = [
        Stamps(
            step=torch.arange(begin, begin + steps).expand(ROWS, steps),
            sequence=range(ROWS),
            starts=[number == 0 or number in starts] * ROWS,
        )
        for number, begin in enumerate(begins)
    ]
    return reach(at, stamps=lambda one: one, is_repeated=False, **options)


@pytest.mark.parametrize(("steps", "said"), [(24, "0 to 23;"), (25, "0 to 24 (none above is looked at);")])
def test_where_the_listing_of_lags_ends(steps, said):
    """At the largest lag that is looked at it says so: a row may have read what lies further back."""
    with watch() as seen:
        lstm()(torch.randn(3, steps, 2))
    assert f": reachable lags: {said} horizon: {steps} steps." in seen.lines()[1]


@pytest.mark.parametrize("lag", [None, 1, 5, 9])
@pytest.mark.parametrize("begins", [(0, 4, 8), (0, 9, 18), (0, 2, 4), (20, 10, 0), (0, 4, 4, 12)])
def test_rows_that_go_on_somewhere(begins, lag):
    with watch() as seen:
        read(lstm(), begins)
    found, expected = seen.reach(lag=lag), expected_of(begins, lag=lag)
    assert found.gaps == expected.gaps
    assert found.borders == expected.borders
    assert found.reachable_lags == expected.reachable_lags
    assert (found.reachable_share, found.in_horizon_share) == (expected.reachable_share, expected.in_horizon_share)
    assert (found.faults, found.targets, found.chunks) == (expected.faults, expected.targets, expected.chunks)


def test_a_vocabulary_gives_the_ceiling():
    with watch() as seen:
        read(lstm(), (0, 9, 18))
    assert seen.reach(lag=5, vocabulary_size=10).ceiling == expected_of((0, 9, 18), lag=5, vocabulary_size=10).ceiling
    assert seen.reach(lag=5).ceiling is None
    assert not any("ceiling" in line for line in seen.lines())


def test_a_state_that_is_dropped_begins_anew():
    with watch() as seen:
        read(lstm(), (0, 4, 8), lambda state: None)
    assert seen.reach(lag=5).reachable_share == 0
    assert seen.reach().gaps == {0: ROWS * 3 * (STEPS - 1)}
    with watch() as seen:
        read(lstm(), (0, 4, 8), lambda state: tuple(torch.zeros_like(field) for field in state))
    assert seen.reach(lag=5).reachable_share == 0


def test_one_row_of_a_state_is_reset():
    def reset_one(state):
        return tuple(field.detach() * torch.tensor([1.0, 0.0, 1.0])[:, None] for field in state)

    with watch() as seen:
        read(lstm(), (0, 9), reset_one)
    assert seen.reach().borders == {5: 2}


def test_rows_that_move_with_their_states_go_on():
    order, model, state = [0, 1, 2], lstm(), None
    with watch() as seen:
        for begin in range(0, 24, STEPS):
            _, state = model(WHOLE[:, begin : begin + STEPS][order], state)
            state = tuple(field[:, [1, 2, 0]] for field in detached(state))
            order = [order[1], order[2], order[0]]
    found = seen.reach(lag=STEPS)
    assert (found.gap, found.rows, found.row_changes) == (0, {ROWS: 6}, 0)
    assert found.reachable_share == 5 / 6  # none of the first chunk


def test_streams_with_a_state_each_go_on():
    """Two sessions take turns, with other numbers of rows."""
    model, states = lstm(), {}
    rows = {"a": [0], "b": [1, 2]}
    with watch() as seen:
        for begin in range(0, 24, STEPS):
            for name in "ab":
                batch = WHOLE[rows[name][0] : rows[name][-1] + 1, begin : begin + STEPS]
                states[name] = detached(model(batch, states.get(name))[1])
    found = seen.reach(lag=STEPS)
    assert (found.gap, found.rows, found.row_changes) == (0, {1: 6, 2: 6}, 0)
    assert found.reachable_share == 5 / 6


def test_a_learned_first_state_is_a_beginning():
    model, first = lstm(), nn.Parameter(torch.ones(1, ROWS, 5))
    with watch() as seen:
        for begin in (0, 9):
            model(WHOLE[:, begin : begin + STEPS], (first * 1, first * 2))
    assert seen.reach().borders == {}


# --- what cannot be known -----------------------------------------------------------------------------------------


def twice(state):
    """Two rows go on from one."""
    return tuple(field.detach()[:, [0, 0, 2]] for field in state)


@pytest.mark.parametrize("hand_on", [lambda state: tuple(field.detach() + 1 for field in state), twice])
def test_a_state_from_nowhere_leaves_it_unknown(hand_on):
    with watch() as seen:
        read(lstm(), (0, 4), hand_on)
    assert seen.reach() is None
    assert not any("horizon" in line for line in seen.lines())


def test_a_state_of_an_evaluation_leaves_it_unknown():
    model = lstm()
    with watch() as seen:
        state = model(WHOLE[:, :4])[1]
        model.eval()
        with torch.no_grad():
            state = model(WHOLE[:, 4:8], detached(state))[1]
        model.train()
        model(WHOLE[:, 8:12], state)
    assert seen.reach() is None


def test_places_that_are_unknown_leave_it_unknown():
    model, state = lstm(), None
    with watch() as seen:
        for begin in (0, 4):
            made = WHOLE[:, begin : begin + STEPS, :1] * torch.ones(2)  # a vector of each value, in a script's own way
            _, state = model(made, state)
    assert seen.reach() is None


def test_copies_that_are_arrays_of_their_own_leave_it_unknown():
    given = [torch.randn(ROWS, STEPS, 2) for _ in range(4)]
    model, state = lstm(), None
    with watch() as seen:
        for batch in given:
            state = detached(model(batch, state)[1])
    assert seen.reach() is None
    assert seen.unknown[0].startswith(
        "LSTM: at 9 of 9 hand-overs it is not known whether a row goes on where its state stopped"
    )


def test_a_model_that_only_evaluates_has_no_reach():
    with watch() as seen, torch.no_grad():
        read(lstm().eval(), (0, 4))
    assert seen.reach() is None


# --- which layer --------------------------------------------------------------------------------------------------


def test_the_layer_is_named_where_there_are_several():
    model = nn.ModuleDict({"first": lstm(), "second": lstm()})
    with watch(model) as seen:
        read(model["first"], (0, 9, 18))
        read(model["second"], (0, 4, 8))
    assert (seen.reach("first").borders, seen.reach("second").borders) == ({5: 6}, {0: 6})
    assert [line[:12] for line in seen.lines()[2:4]] == ["first: gap: ", "second: gap:"]
    for layer, message in ((None, "they are first, second"), ("frst", r"did you mean 'first'\?")):
        with pytest.raises(RuleError, match=message):
            seen.reach(layer)


def test_nothing_was_called():
    with watch() as seen:
        pass
    with pytest.raises(RuleError, match="`layer` must be a recurrent layer that was called, and none was"):
        seen.reach()


def test_layers_of_one_name_have_their_lines():
    with watch() as seen:
        read(lstm(), (0, 9, 18))
        read(lstm(), (0, 4, 8))
    assert sum("horizon: 4 steps" in line for line in seen.lines()) == 2


# --- how far a gradient goes ----------------------------------------------------------------------------------------


class Stepped(nn.Module):
    def __init__(self, hand_on=lambda state: state):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.hand_on = nn.LSTMCell(2, 5), hand_on

    def forward(self, inputs, state):
        for step in inputs.unbind(1):
            state = self.cell(step, state)
            state = self.hand_on(state)
        return state[0], state


@pytest.mark.parametrize(("hand_on", "steps"), [(lambda state: state, "4 steps"), (detached, "1 step")])
def test_the_horizon_of_steps_inside_one_call(hand_on, steps):
    with watch() as seen:
        read(Stepped(hand_on), (0, 9, 18))
    found, expected = seen.reach(lag=1), expected_of((0, 9, 18), lag=1)
    assert (found.gaps, found.borders, found.chunks) == (expected.gaps, expected.borders, 3)
    assert found.in_horizon_share == expected.in_horizon_share
    assert sum(f"; horizon: {steps}." in line for line in seen.lines()) == 1


def test_a_state_that_the_model_changes_between_its_steps_leaves_it_unknown():
    """As where it decays between two observations: no call has left it, and it is none to begin with."""
    with watch() as seen:
        read(Stepped(lambda state: tuple(0.9 * field for field in state)), (0, 4, 8), lambda state: None)
    assert seen.reach() is None
    assert not any("horizon" in line or "reachable" in line for line in seen.lines())


def test_a_state_that_a_loop_changes_between_two_calls_leaves_it_unknown():
    """Outside of any module, between calls of which one gradient comes back; learned first states are beginnings."""
    torch.manual_seed(0)
    layer, norm, begin = nn.GRU(2, 5, batch_first=True), nn.LayerNorm(5), nn.Parameter(torch.zeros(1, 1, 5))
    for is_changed in (True, False):
        with watch() as seen:
            for chunk in WHOLE[:, :24].split(8, 1):
                one, other = chunk.split(4, 1)
                state = begin.expand(1, len(chunk), 5)
                output, state = layer(one, state)
                other, _ = layer(other, norm(state) if is_changed else state)
                (output.mean() + other.mean()).backward()
        assert any("horizon" in line for line in seen.lines()) != is_changed
    with watch() as seen:  # one backward pass of several samples
        sum(layer(chunk, begin.expand(1, ROWS, 5))[0].mean() for chunk in WHOLE[:, :24].split(8, 1)).backward()
    assert any("horizon: 8 steps" in line for line in seen.lines())


def test_a_graph_that_goes_further_back_than_a_call_has_no_horizon():
    with watch() as seen:
        read(lstm(), (0, 4, 8), lambda state: state)
    assert seen.reach().gap == 0
    assert not any("horizon" in line for line in seen.lines())


# --- stamps that are given ----------------------------------------------------------------------------------------


def read_told(stamps, model=None):
    model, state = model or lstm(), None
    with watch() as seen:
        for one in stamps:
            batch = torch.randn(*np.shape(one.step), 2)
            seen.place(batch, one)
            if one.starts is not None and state is not None:
                state = tuple(field * ~torch.tensor(one.starts)[:, None] for field in state)
            state = detached(model(batch, state)[1])
    return seen


PADDED = [
    Stamps(step=[[-1, 0, 1, 2], [0, 1, 2, 3]], sequence=[0, 1]),
    Stamps(step=[[3, 4, -1, -1], [4, 5, 6, 7]], sequence=[0, 1]),
    Stamps(step=[[-1, -1, -1, -1], [8, 9, 10, 11]], sequence=[0, 1]),
    Stamps(step=[[5, 6, 7, 8], [12, 14, 15, 13]], sequence=[0, 1], is_asked=[[False] * 4, [True] * 4]),
]


def test_padding_is_nowhere():
    seen = read_told(PADDED)
    expected = reach(PADDED, stamps=lambda one: one, lag=2, is_repeated=False)
    assert seen.reach(lag=2) == expected
    assert expected.gap is None  # the last row does not rise by one
    assert seen.faults == []


def test_other_sequences_are_known():
    stamps = [Stamps(step=[[0, 1]] * 2, sequence=[number, 0]) for number in range(6)]
    seen = read_told(stamps)
    assert Counter(seen.reach().gaps) == Counter({0: 12, "other": 5, -2: 5})
    assert {finding.kind: finding.count for finding in seen.faults} == {"other-sequence": 5, "rows-reread": 5}


@pytest.mark.parametrize("starts", [None, [True, True]])
def test_a_state_that_is_told_to_begin_is_not_lost(starts):
    """Without a word it is, where rows go on exactly where they stopped."""
    model = lstm()
    with watch() as seen:
        for begin in range(0, 20, 2):
            batch = torch.randn(2, 2, 2)
            seen.place(batch, Stamps(step=[[begin, begin + 1]] * 2, sequence=[0, 1], starts=starts))
            model(batch)
    assert [finding.kind for finding in seen.faults] == ([] if starts else ["state-lost"])


@pytest.mark.parametrize("shape", [(2, 3, 2), (3, 4, 2), (4,)])
def test_stamps_of_another_shape_are_refused(shape):
    with watch() as seen, pytest.raises(RuleError, match=r"shape \(2, 4\) for a tensor of shape"):
        seen.place(torch.randn(shape), PADDED[0])


def test_answers_that_are_given_are_counted():
    stamps = [
        Stamps(step=[[begin, begin + 1]], answers=[[begin - 1, begin - 2]], is_asked=[[True, begin > 0]])
        for begin in (0, 2, 4)
    ]
    expected = reach(stamps, stamps=lambda one: one, is_repeated=False)
    assert read_told(stamps).reach() == expected
    assert expected.targets == 5


@pytest.mark.parametrize(("first", "is_told"), [(3, True), (8, False)])
def test_of_a_few_calls_before_the_first_update_no_reach_is_told(first, is_told):
    """Most calls come behind some that were not watched: where those lead nobody knows."""
    model, state = lstm(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(updates=4) as seen:
        for number in range(first + 4):
            output, state = model(WHOLE[:, 2 * number : 2 * number + 2], state)
            if number >= first:
                optimizer.zero_grad()
                output.mean().backward()
                optimizer.step()
            state = detached(state)
    assert (seen.reach() is not None) == is_told == any("gap" in line for line in seen.lines())


def test_a_closure_that_is_asked_again_is_followed():
    """Each time with the state that the time before has left, from the same data."""
    model, state = lstm(), None
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, max_eval=10)

    def closure():
        nonlocal state
        optimizer.zero_grad()
        output, state = model(WHOLE[:, :6], state)
        loss = (output - 1).square().mean()
        loss.backward()
        state = detached(state)
        return loss

    with watch() as seen:
        optimizer.step(closure)
    times = len(seen._calls.calls)
    assert times >= 3
    assert (seen.reach().borders, seen.unknown) == ({-6: (times - 1) * ROWS}, [])
    assert [finding.kind for finding in seen.faults] == ["rows-reread"]


class Looking(torch.optim.SGD):
    """Notes what `look` gives, before and after it asks for the loss."""

    def step(self, closure):
        self.look()
        with torch.enable_grad():
            closure()
        self.look()
        return super().step()


@pytest.mark.parametrize("name", ["closure", None])
def test_what_a_closure_reads_is_followed(name):
    """And nothing else of an optimiser's step."""
    model, state = lstm(), None
    optimizer = Looking(model.parameters(), lr=0.1)

    def closure(begin):
        nonlocal state
        optimizer.zero_grad()
        batch = torch.cat([WHOLE[:, begin : begin + 2], WHOLE[:, begin + 2 : begin + 4]], dim=1)
        optimizer.look()
        output, state = model(batch, state)
        output.mean().backward()
        optimizer.look()
        state = detached(state)

    noted = []
    with watch() as seen:
        optimizer.look = lambda: noted.append(seen._calls.places.is_paused)
        for begin in (0, 9, 18):
            asked = partial(closure, begin)
            optimizer.step(**{name: asked}) if name else optimizer.step(asked)
        optimizer.look()
    assert seen.reach().borders == {5: 2 * ROWS}
    assert noted == [True, False, False, True] * 3 + [False]


def test_a_closure_behind_the_watched_updates():
    """Nobody stands before it any more."""

    class Keeping(torch.optim.SGD):
        def step(self, closure):
            kept.append(closure)
            closure()
            return super().step()

    def closure():
        model(WHOLE[:, :4])[0].mean().backward()

    kept, model = [], lstm()
    optimizer = Keeping(model.parameters(), lr=0.1)
    with watch(updates=4) as seen:
        for _ in range(4):
            optimizer.step(closure)
    assert len(seen._calls.calls) == 2  # an update each time: its own step, and that of its class
    assert [each is closure for each in kept] == [False, False, True, True]
    assert kept[0].__name__ == "closure"


def test_a_closure_that_raises():
    """What it raises comes through, and all is followed again behind it."""

    def closure():
        raise KeyError("mine")

    model = lstm()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch() as seen:
        with pytest.raises(KeyError, match="mine"):
            optimizer.step(closure)
        model(torch.cat([WHOLE[:, :2], WHOLE[:, 2:4]], dim=1))[0].mean().backward()
        optimizer.step()
        model(WHOLE[:, 4:8])
    assert [call.standing is None for call in seen._calls.calls] == [False, False]
