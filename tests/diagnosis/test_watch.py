"""`watch`: what a training does with the states of its recurrent layers, seen without a word about the data."""

import copy
from pathlib import Path

import pytest
import torch
from structures import (
    awd_lstm,
    packed_classifier,
    recurrent_ppo,
    seq2seq,
    session_streams,
    tbptt_by_hand,
    word_language_model,
)
from support.loops import detached, train
from support.watched_models import Model, Stepped, chunks, kinds, series, train_by_hand
from torch import nn

from echo_torch import watch
from echo_torch.diagnosis.watching.findings import KINDS
from echo_torch.diagnosis.watching.lanes import is_empty

STRUCTURES = {
    module.__name__.split(".")[-1]: module
    for module in (
        awd_lstm, packed_classifier, recurrent_ppo, seq2seq, session_streams, tbptt_by_hand, word_language_model,
    )
}  # fmt: skip
LONG = ("recurrent_ppo", "seq2seq", "packed_classifier")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in STRUCTURES]
)
def test_healthy_trainings(name):
    model = STRUCTURES[name].make_model()
    with watch(model) as seen:
        STRUCTURES[name].train(model)
    assert seen.faults == []
    assert "No fault was seen." in seen.lines()
    assert not any("none that a call has left" in text for text in seen.unknown)


# --- each kind, as people make it, and mended -------------------------------------------------------------------


def swapped(state):
    return detached(state)[::-1]


def hidden_twice(state):
    return state[0].detach(), state[0].detach()


def forgets_the_cells(state):
    state[0].detach(), state[1].detach()  # the result is dropped
    return state


@pytest.mark.parametrize(
    ("hand_on", "expected"),
    [
        (detached, []),
        (swapped, [("fields-swapped", "core", 5, 5)]),
        (hidden_twice, [("fields-swapped", "core", 5, 5)]),
        (forgets_the_cells, [("not-detached", "core", 5, 5)]),
        (lambda state: (state[0].detach(), state[1]), [("not-detached", "core", 5, 5)]),
        (lambda state: None, [("state-lost", "core", 10, 10)]),
        (lambda state: tuple(torch.zeros_like(field) for field in state), [("state-lost", "core", 10, 10)]),
    ],
)
def test_what_stands_between_two_chunks(hand_on, expected):
    model = Model()
    with watch(model) as seen:
        train_by_hand(model, chunks(), hand_on)
    assert kinds(seen) == expected


def test_the_second_backward_pass_that_raises_is_seen():
    model = Model()
    with watch(model) as seen, pytest.raises(RuntimeError, match="backward through the graph a second time"):
        train(model, chunks(), hand_on=lambda state: state)
    assert kinds(seen) == [("not-detached", "core", 1, 1)]


def test_a_layer_that_leaves_the_same_hides_nothing():
    """A copy of the model, with the same weights, is read after it."""
    model = Model()
    follower, state = copy.deepcopy(model), None
    with watch() as seen:
        for batch in chunks():
            before = state
            output, state = model(batch, before)
            with torch.no_grad():
                follower(batch, before)
            output.mean().backward(retain_graph=True)
    assert kinds(seen) == [("not-detached", "core of the first Model", 5, 5)]


@pytest.mark.parametrize(
    ("hand_on", "expected"),
    [
        (lambda state: state, []),
        (detached, [("cut-inside", "cell", 18, 18)]),
        (lambda state: (state[0].detach(), state[1]), []),  # the cells bring the gradient
    ],
)
def test_what_stands_between_two_steps(hand_on, expected):
    """Of four steps three have one before."""
    model = Stepped(hand_on)
    with watch(model) as seen:
        train(model, chunks(), state=(torch.zeros(2, 5), torch.zeros(2, 5)))
    assert kinds(seen) == expected


def test_a_truncation_by_plan_inside_a_call_is_none():
    class Every(Stepped):
        def forward(self, inputs, state):
            outputs = []
            for number, step in enumerate(inputs):
                state = detached(state) if number % 2 == 0 else state
                state = self.cell(step, state)
                outputs.append(self.head(state[0]))
            return torch.stack(outputs), state

    model = Every()
    with watch(model) as seen:
        train(model, chunks(), state=(torch.zeros(2, 5), torch.zeros(2, 5)))
    assert seen.faults == []


@pytest.mark.parametrize("kind", [nn.GRU, nn.GRUCell])
@pytest.mark.parametrize(
    ("hand_on", "backwards", "horizon", "expected"),
    [
        (lambda state: state, 4, 4, []),
        (torch.Tensor.detach, 4, 1, [("cut-inside", "core", 18, 18)]),
        (torch.Tensor.detach, 1, 1, []),  # of chunks of one step each the state is detached between two of them
    ],
)
def test_what_stands_between_two_steps_of_a_loop(kind, hand_on, backwards, horizon, expected):
    """Outside of any module; those belong together that one backward pass reaches."""
    core, state, losses = kind(3, 5), torch.zeros(*([1] if kind is nn.GRU else []), 2, 5), []
    model = nn.ModuleDict({"core": core})
    optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
    with watch(model) as seen:
        for number, step in enumerate(series(), 1):
            output = core(step if kind is nn.GRUCell else step[None], state)
            state = hand_on(output if kind is nn.GRUCell else output[1])
            losses.append((output if kind is nn.GRUCell else output[0]).square().mean())
            if number % backwards == 0:
                optimizer.zero_grad()
                sum(losses).backward()
                optimizer.step()
                state, losses = state.detach(), []
    assert kinds(seen) == expected
    assert seen.lines()[1].endswith(f"horizon: {horizon} step{'s' if horizon > 1 else ''}.")


def test_what_is_read_again_is_no_chunk_that_could_be_cut():
    """As of a deep supervision, which refines a state on one input, with a loss at each time and one backward pass."""
    core = nn.GRUCell(3, 5)
    optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
    with watch(core) as seen:
        for step in series().flip(0):  # samples of their own
            state, losses = torch.zeros(2, 5), []
            for _ in range(4):
                state = core(step, state.detach())
                losses.append(state.square().mean())
            optimizer.zero_grad()
            sum(losses).backward()
            optimizer.step()
    assert [kind for kind, *_ in kinds(seen)] == ["rows-reread"]
    assert "mostly 1 step." in seen.faults[0].sentence


def test_another_number_of_rows():
    model = Model()
    with watch(model) as seen, pytest.raises(RuntimeError, match="Expected hidden"):
        train(model, [*chunks(3), *chunks(1, rows=1)])
    assert kinds(seen) == [("rows-changed", "core", 1, 3)]
    assert seen.faults[0].sentence.endswith(
        "Give a batch that is shorter a state of its own, or leave its last rows unused."
    )
    by_name = Model()
    by_name.forward = lambda inputs, state=None: by_name.core(inputs, hx=state)
    with watch(by_name) as seen:
        train(by_name, chunks(), hand_on=swapped)
    assert kinds(seen) == [("fields-swapped", "core", 5, 5)]


@pytest.mark.parametrize(
    ("others", "cure"),
    [((3,), "Give a batch that has more rows a state"), ((1, 3), "Give a batch that has more rows or fewer a state")],
)
def test_a_batch_with_more_rows(others, cure):
    """As that of a validation that takes the state of the training."""
    model = Model()
    with watch(model) as seen:
        state = train(model, chunks(3))
        for rows in others:
            with pytest.raises(RuntimeError, match="Expected hidden"):
                model(*chunks(1, rows=rows), state)
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [
        ("rows-changed", len(others), 2 + len(others))
    ]
    assert cure in seen.faults[0].sentence
    assert seen.faults[0].sentence.endswith(" of its own: begin it without one.")


@pytest.mark.parametrize("is_kept", [False, True])
def test_the_state_of_a_validation(is_kept):
    model = Model()
    with watch(model) as seen:
        state = train(model, chunks())
        model.eval()
        with torch.no_grad():
            _, left = model(chunks()[0], state)
        model.train()
        train(model, chunks(), state=state if is_kept else left)
    assert kinds(seen) == ([] if is_kept else [("validation-leak", "core", 1, 1)])


def test_every_kind_has_a_test():
    text = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("test_watch*.py")))
    assert all(f'"{kind}"' in text for kind in KINDS)


def test_zeros_are_no_state():
    for value, is_zero in ((0.0, True), (-0.0, True), (1e-45, False), (-1.0, False), (float("nan"), False)):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            row = torch.tensor([0.0, value], dtype=dtype)
            expected = is_zero or bool((row == 0).all())
            assert is_empty(row.view(torch.uint8).numpy().tobytes()) == expected, (value, dtype)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"model": 3}, "`model` must be a torch.nn.Module, or None.*Got int"), ({"updates": 0}, "`updates` must be at")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        watch(**options)
