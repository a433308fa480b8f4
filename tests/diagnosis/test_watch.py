"""`watch`: what a training does with the states of its recurrent layers, seen without a word about the data."""

import contextlib
import copy
import io
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
from support.loops import Reader, detached, train
from torch import nn
from torch._C import _len_torch_function_stack
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching import calls as calls_module
from echo_torch.diagnosis.watching import lanes as lanes_module
from echo_torch.diagnosis.watching.findings import KINDS
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.lanes import is_empty

STRUCTURES = {
    module.__name__.split(".")[-1]: module
    for module in (
        awd_lstm, packed_classifier, recurrent_ppo, seq2seq, session_streams, tbptt_by_hand, word_language_model,
    )
}  # fmt: skip


class Model(nn.Module):
    """A layer or a cell, with a head."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        torch.manual_seed(0)
        self.core, self.head = kind(3, 5, **options), nn.Linear(5, 2)

    def forward(self, inputs, state=None):
        output, state = self.core(inputs, state)
        return self.head(output), state


class Stepped(nn.Module):
    """A cell that is stepped inside one call; `hand_on` stands between two steps."""

    def __init__(self, hand_on=lambda state: state):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head, self.hand_on = nn.LSTMCell(3, 5), nn.Linear(5, 2), hand_on

    def forward(self, inputs, state):
        outputs = []
        for step in inputs:
            state = self.cell(step, state)
            outputs.append(self.head(state[0]))
            state = self.hand_on(state)
        return torch.stack(outputs), state


def chunks(number=6, steps=4, rows=2):
    return torch.randn(number, steps, rows, 3, generator=torch.Generator().manual_seed(1))


def train_by_hand(model, batches, hand_on):
    """Without an optimiser, the graph kept as one does to silence the error of a second backward pass."""
    state = None
    for batch in batches:
        model.zero_grad()
        output, state = model(batch, state)
        output.square().mean().backward(retain_graph=True)
        for weight in model.parameters():
            weight.data -= 0.1 * weight.grad
        state = hand_on(state)


def kinds(seen):
    return [(finding.kind, finding.module, finding.count, finding.of) for finding in seen.faults]


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


def test_another_number_of_rows():
    model = Model()
    with watch(model) as seen, pytest.raises(RuntimeError, match="Expected hidden"):
        train(model, [*chunks(3), *chunks(1, rows=1)])
    assert kinds(seen) == [("rows-changed", "core", 1, 3)]
    by_name = Model()
    by_name.forward = lambda inputs, state=None: by_name.core(inputs, hx=state)
    with watch(by_name) as seen:
        train(by_name, chunks(), hand_on=swapped)
    assert kinds(seen) == [("fields-swapped", "core", 5, 5)]


def windows(series, order, *, rows=2, steps=4):
    """Batches of consecutive windows, by a loader."""
    data = TensorDataset(series.view(-1, steps, 3))
    loader = DataLoader(data, batch_size=rows, sampler=order)
    return [batch.transpose(0, 1) for (batch,) in loader]


def by_row(number, rows=2):
    """Row i of each batch goes on where row i of the batch before stopped."""
    return [row * (number // rows) + place for place in range(number // rows) for row in range(rows)]


SERIES = torch.randn(160, 3, generator=torch.Generator().manual_seed(2))
# Stretches in another order: four sizes of gaps, but most hand-overs have none.
BLOCKS = [
    window
    for first, last in ((0, 3), (10, 12), (4, 9), (17, 19), (13, 15), (16, 16))
    for window in by_row(40)[2 * first : 2 * last + 2]
]
SHUFFLED = torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (by_row(40), []),
        (range(40), [("rows-skip", "core", 38, 38)]),
        (SHUFFLED, [("shuffled", "core", 36, 38)]),
        ([*by_row(40)[:20], *by_row(40)[22:]], [("rows-skip", "core", 2, 36)]),
        (BLOCKS, [("rows-skip", "core", 4, 38), ("rows-reread", "core", 4, 38)]),
        ([*by_row(40)[:20], *by_row(40)[16:]], [("rows-reread", "core", 2, 42)]),
    ],
)
@pytest.mark.parametrize("prepare", [lambda batch: batch, lambda batch: (batch.double() / 2).float()])
def test_where_rows_go_on(order, expected, prepare):
    """The loader makes copies, and a preparation copies them again."""
    model = Model()
    with watch(model) as seen:
        train(model, map(prepare, windows(SERIES, order)))
    assert kinds(seen) == expected
    assert seen.unknown == []
    rows = [window * 4 for window in order]
    gaps = [b - a - 4 for a, b in zip(rows, rows[2:], strict=False)]
    assert sum(gap != 0 for gap in gaps) == sum(count for _, _, count, _ in expected)


@pytest.mark.parametrize("is_reset", [False, True])
def test_sequences_one_after_another(is_reset):
    model, sequences = Model(), [torch.randn(12, 2, 3) for _ in range(5)]

    def read():
        state = None
        for sequence in sequences:
            state = train(model, sequence.split(4), state=None if is_reset else state)

    with watch(model) as seen:
        read()
        read()
    expected = [] if is_reset else [("other-sequence", "core", 2 * 8, 2 * 28)]
    assert kinds(seen)[:1] == expected


def test_batches_made_on_the_way_stand_nowhere():
    """Each is an array of its own, and gone when the next one comes."""
    model = Model()
    with watch(model) as seen:
        train(model, (torch.randn(4, 2, 3) for _ in range(20)))
    assert seen.faults == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (slice(None), []),
        (slice(None, None, 2), [("rows-skip", "core", 4, 4)]),
        ([0, 1, 1, 2], [("rows-reread", "core", 2, 6)]),
    ],
)
def test_an_array_of_chunks(order, expected):
    """Its axes are chunks, rows and steps: a row goes on in the next chunk, though others stand in between."""
    model, data = Model(batch_first=True), torch.randn(6, 2, 4, 3)
    with watch(model) as seen:
        train(model, [data[number] for number in torch.arange(6)[order].tolist()])
    assert kinds(seen) == expected
    assert all("mostly 4 steps" in finding.sentence for finding in seen.faults)


def test_single_steps_of_many_rows():
    """A step of an array (steps, rows, features) is all of its rows."""
    model, frames = Model(), torch.randn(30, 2, 3)
    with watch(model) as seen:
        train(model, frames.split(1))
    assert seen.faults == []
    with watch(model) as seen:
        train(model, frames[::3].split(1))
    assert kinds(seen) == [("rows-skip", "core", 18, 18)]


def test_symbols_through_an_embedding_and_two_layers():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.drop = nn.Embedding(9, 3), nn.Dropout(0.2)
            self.lower, self.core = nn.GRU(3, 3), Model()

        def forward(self, words, state):
            return self.core(self.lower(self.drop(self.embedding(words)))[0], state)

    model, text = Words(), torch.randint(9, (60, 2))
    with watch(model) as seen:
        train(model, text.split(4)[::2])
    assert ("rows-skip", "core.core", 2 * 7, 2 * 7) in kinds(seen)
    assert all(module != "lower" or kind == "state-lost" for kind, module, *_ in kinds(seen))


def test_places_are_followed():
    series, row = torch.arange(24).view(4, 6), torch.arange(6)
    with watch() as seen:
        places = seen._calls.places
        found = {
            "slice": series[1, 2:4],
            "copy": torch.stack([series[2], series[0]])[:, 1],
            "cat": torch.cat([series[:, :1], series[:, 3:4]], dim=1)[1],
            "index": series.t()[torch.tensor([5, 0]), 1],
            "halves": torch.cat([row[3:], row[:3]]),
            "cast": series[3].float().clone()[2:4],
            "T": torch.stack([series[2], series[0]]).T[:, 1],
            "mT": torch.stack([series[2], series[0]]).mT[5],
            "data": torch.stack([series[2], series[0]]).data[1],
            "pad": pad_sequence([series[0, :2], series[1, :1]], batch_first=True)[0],
        }
        stand = {name: (places.of(tensor) % 2**40).tolist() for name, tensor in found.items()}
        made = nn.Linear(6, 2)(series.float())
        assert places.of(made) is None
    assert stand == {name: tensor.long().tolist() for name, tensor in found.items()}
    assert len(places._places) == 0


def test_nothing_is_kept_alive():
    with watch() as seen:
        places = seen._calls.places
        for _ in range(20):
            batch = torch.stack([torch.randn(5), torch.randn(5)]) / 2
        assert batch is not None
        assert len(places._places) <= 2
        del batch
        assert len(places._places) == 0


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


# --- loops that look dangerous and are none ---------------------------------------------------------------------


def two_chunks_a_graph(model):
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for one, other in chunks().view(3, 2, 4, 2, 3):
        optimizer.zero_grad()
        first, state = model(one, state)
        second, state = model(other, state)
        (first.square().mean() + second.square().mean()).backward()
        optimizer.step()
        state = detached(state)


def accumulation(model):
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for number, batch in enumerate(chunks(8)):
        output, state = model(batch, state)
        output.square().mean().backward()
        state = detached(state)
        if number % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()


def recomputed(model):
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))
    for batch in chunks():
        optimizer.zero_grad()
        output, state = checkpoint(model, batch, state, use_reentrant=False)
        output.square().mean().backward()
        optimizer.step()
        state = detached(state)


def beam_search(model):
    train(model, chunks())
    model.eval()
    with torch.no_grad():
        state, step = None, torch.randn(1, 3, 3)
        for _ in range(5):
            output, state = model(step, state)
            state = tuple(field[:, torch.tensor([2, 0, 0])] for field in state)
            step = torch.cat([output, output[..., :1]], dim=2)
    model.train()
    train(model, chunks())


def packed_both_ways(model):
    both = nn.GRU(3, 5, bidirectional=True)
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1)
    for batch in chunks():
        optimizer.zero_grad()
        _, last = both(pack_padded_sequence(batch, torch.tensor([4, 2])))
        last.square().mean().backward()
        optimizer.step()


def streams_with_a_state_each(model):
    optimizer, states = torch.optim.SGD(model.parameters(), lr=0.1), [None] * 3
    streams = [chunks() for _ in range(3)]
    for number in range(18):
        batch = streams[number % 3][number // 3]
        optimizer.zero_grad()
        output, state = model(batch, states[number % 3])
        output.square().mean().backward()
        optimizer.step()
        states[number % 3] = detached(state)


def copy_that_follows(model):
    follower, state = copy.deepcopy(model).eval(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in chunks():
        optimizer.zero_grad()
        before = state
        output, state = model(batch, state)
        with torch.no_grad():
            target, _ = follower(batch, before)
        (output - target).square().mean().backward()
        optimizer.step()
        state = detached(state)


def evaluation_between(model):
    state = None
    for batch in chunks():
        state = train(model, [batch], state=state)
        model.eval()
        with torch.no_grad():
            own = None
            for held_out in chunks(2):
                _, own = model(held_out, own)
        model.train()


def several_losses_from_one_graph(model):
    """A graph that is walked twice for one update."""
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for batch in chunks():
        optimizer.zero_grad()
        output, state = model(batch, state)
        output.square().mean().backward(retain_graph=True)
        output.abs().mean().backward()
        optimizer.step()
        state = detached(state)


def learned_first_state(model):
    first = nn.Parameter(torch.randn(1, 1, 5))
    optimizer = torch.optim.SGD([*model.parameters(), first], lr=0.1)
    for batch in chunks():
        optimizer.zero_grad()
        output, _ = model(batch, (first.expand(1, 2, 5).contiguous(), torch.zeros(1, 2, 5)))
        output.square().mean().backward()
        optimizer.step()


def two_backward_passes_an_update(model):
    """The second goes through the state into the graph of the first."""
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for one, other in chunks().view(3, 2, 4, 2, 3):
        optimizer.zero_grad()
        first, state = model(one, state)
        first.square().mean().backward(retain_graph=True)
        second, state = model(other, state)
        second.square().mean().backward()
        optimizer.step()
        state = detached(state)


def burn_in(model):
    """The first step of each chunk warms the state up."""

    class Warm(Stepped):
        def forward(self, inputs, state):
            for number, step in enumerate(inputs):
                state = self.cell(step, detached(state) if number == 1 else state)
            return self.head(state[0]), state

    train(Warm(), chunks(steps=2), state=(torch.zeros(2, 5), torch.zeros(2, 5)))


def streams_of_which_one_is_evaluated(model):
    """A row of the state comes from an evaluation of that stream, the other from its training."""
    state = train(model, chunks())
    model.eval()
    with torch.no_grad():
        _, left = model(chunks()[0], state)
    model.train()
    rows = tuple(torch.cat([new[:, :1], old[:, 1:]], dim=1) for new, old in zip(left, state, strict=True))
    train(model, chunks(), state=rows)


HEALTHY = [
    two_backward_passes_an_update, burn_in, streams_of_which_one_is_evaluated,
    two_chunks_a_graph, accumulation, recomputed, beam_search, packed_both_ways, streams_with_a_state_each,
    copy_that_follows, evaluation_between, several_losses_from_one_graph, learned_first_state,
]  # fmt: skip


@pytest.mark.parametrize("loop", HEALTHY, ids=lambda loop: loop.__name__)
def test_loops_that_look_dangerous(loop):
    with watch() as seen:
        loop(Model())
    assert seen.faults == []
    assert len(seen._calls.calls) >= 6


# --- it changes nothing -----------------------------------------------------------------------------------------


def hooks_of_torch():
    module = torch.nn.modules.module
    from torch.optim import optimizer

    names = ("_global_forward_hooks", "_global_forward_pre_hooks")
    ours = [len(optimizer._global_optimizer_post_hooks), len(optimizer._global_optimizer_pre_hooks)]
    return [*(len(getattr(module, name)) for name in names), *ours, _len_torch_function_stack()]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_training_is_the_same_to_the_bit(kind):
    def weights(*, is_watched):
        model = Model(kind, num_layers=2, dropout=0.5)
        hand_on = detached if kind is nn.LSTM else torch.Tensor.detach
        torch.manual_seed(4)
        if is_watched:
            with watch(model) as seen:
                train(model, chunks(), hand_on)
            assert seen.faults == []
        else:
            train(model, chunks(), hand_on)
        return [*model.state_dict().values(), torch.get_rng_state()]

    before = hooks_of_torch()
    assert all(map(torch.equal, weights(is_watched=True), weights(is_watched=False)))
    assert hooks_of_torch() == before


def test_nothing_is_left_behind_by_an_exception():
    before, model = hooks_of_torch(), Model()

    def stop(state):
        raise KeyError("stop")

    with pytest.raises(KeyError), watch(model) as seen:
        train(model, chunks(), hand_on=stop)
    assert hooks_of_torch() == before
    assert len(seen._calls.gradients) == 0
    assert seen.lines()[0] == "core begins once in training: 1 without a state."


def test_a_model_can_be_copied_and_saved_meanwhile():
    model = Model()
    with watch(model):
        state = train(model, chunks())
        torch.save(model.state_dict(), io.BytesIO())
        other = copy.deepcopy(model)
        train(other, chunks(), state=state)
    assert not model.core._forward_hooks


def test_no_hook_is_left_on_a_tensor():
    model = Model()
    with watch(model):
        _, state = model(chunks()[0])
        output, _ = model(chunks()[1], state)
        output.mean().backward(retain_graph=True)
        _, later = model(chunks()[2], state)
        assert all(field._backward_hooks for field in state)
    assert not any(field._backward_hooks for field in (*state, *later))


# --- how much is watched, and what is said ----------------------------------------------------------------------


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


def test_what_an_optimiser_does_is_no_way_of_data():
    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            noted.append(seen._calls.places.is_paused)
            assert _len_torch_function_stack() == 0
            return super().step(closure)

    model, noted = Model(), []
    with watch(model) as seen:
        optimizer = Noting(model.parameters(), lr=0.1)
        for batch in chunks(3):
            model(batch)[0].mean().backward()
            optimizer.step()
            noted.append(seen._calls.places.is_paused)
            assert _len_torch_function_stack() == 1
    assert noted == [True, False] * 3


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


def test_a_default_device_is_none_of_its_business():
    """What it makes for itself is made where the data are."""
    series, buffer = torch.randn(40, 2, 3), torch.empty(5, 2, 3)
    with torch.device("meta"), watch() as seen:
        model = Model().to_empty(device="cpu")
        train(model, (buffer.copy_(chunk) for chunk in series.split(5)))
    assert (seen.faults, seen.unknown, seen.fault) == ([], [], None)


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
            assert not places._places
    assert _len_torch_function_stack() == 0


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(calls_module, "_MOST_CALLS", 30)
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
        "core begins 6 times in training: 3 with what an earlier call left, 2 without a state, 1 with one that no call "
        "has left.",
        "No fault was seen.",
        "unknown: core: at 1 of 6 beginnings the state is none that a call has left.",
    ]
    assert seen.findings == {"findings": [], "unknown": seen.unknown}


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
    assert [line.split(" begins ")[0] for line in seen.lines() if " begins " in line] == ["core"]


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


def test_what_a_function_writes_into_holds_what_it_wrote():
    with watch(), torch.no_grad():
        pieces, whole = list(torch.randn(3, 4, 2)), torch.empty(3, 4, 2)
        torch.stack(pieces, out=whole)
        assert torch.equal(whole, torch.stack(pieces))


def test_a_buffer_that_is_filled_anew_stands_nowhere():
    """It is another step each time, though it lies in the same place."""
    model, state, word = Model(batch_first=True), None, torch.randn(2, 1, 3)
    with watch() as seen:
        for number in range(12):
            output, state = model(word.fill_(number) if number else word, state)
            state = tuple(field.detach() for field in state)
            output.mean().backward()
    assert seen.faults == []
    assert seen.unknown


@pytest.mark.parametrize("order", [range(5, -1, -1), [3, 0, 5, 1, 4, 2]], ids=["backwards", "permuted"])
def test_steps_outside_of_a_module_are_no_hand_overs(order):
    """A decoder reads a row in an order of its own, in a loop of the script itself."""
    cell, data = nn.LSTMCell(3, 4), torch.randn(2, 30, 3)
    with watch() as seen:
        for begin in range(0, 30, 6):
            state, loss = None, 0
            for step in order:
                state = cell(data[:, begin + step], state)
                loss = loss + state[0].mean()
            loss.backward()
    assert seen.faults == []


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("step", [9, 20])
def test_lines_that_are_joined_are_one_text(step, first):
    """As those of a file, each a tensor of its own that is kept; the text is cut into rows, which cross the lines."""
    generator = torch.Generator().manual_seed(1)
    lines = [torch.randint(9, (length,), generator=generator) for length in range(20, 60)]
    with watch() as seen:
        text = torch.cat([line[first:] for line in lines])
        rows = text[: len(text) // 4 * 4].view(4, -1).t().contiguous()
        train(Reader(nn.LSTM, symbols=9), rows.split(step))
    assert (seen.faults, seen.unknown) == ([], [])


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


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_samples_that_carry_nothing_meet_by_chance(seed):
    """Some row goes on in the storage where the row before it ended, but no rule is behind it."""
    torch.manual_seed(seed)
    samples, core = torch.randn(40, 5, 3), nn.GRU(3, 4, batch_first=True)
    with watch() as seen:
        for _ in range(6):
            for batch in samples[torch.randperm(40)].split(8):
                core(batch)[0].mean().backward()
    rows = HandOvers(seen._calls.calls, seen._calls).beginnings
    assert rows.continued >= 3
    assert 2 * rows.continued < rows.number == 29 * 8
    assert (rows.lost, rows.unclear) == (0, 0)
    assert seen.faults == []
    assert "gap:" not in " ".join(seen.lines())


def test_frames_of_a_list_give_no_stride():
    """Each is a tensor of its own; in between a series is read, where one step follows the other."""
    frames, series, core = [torch.randn(2, 3) for _ in range(40)], torch.randn(4, 2, 3), nn.GRU(3, 4)
    with watch() as seen:
        for begin in range(0, 40, 8):
            for first in range(begin, begin + 8, 2):
                core(torch.stack(frames[first : first + 2]))[0].mean().backward()
            _, state = core(series[:2])
            core(series[2:], state.detach())[0].mean().backward()
    assert seen.faults == []


def test_a_model_that_reads_its_own_guesses():
    """Each is a tensor of its own: from one to the next is no step. A sample that is primed goes on in one tensor."""
    torch.manual_seed(0)
    model, prime = Reader(symbols=9), torch.tensor([3, 5, 7])
    with watch() as seen:
        for _ in range(4):
            symbol, state, loss = torch.randint(9, (1, 1)), None, 0
            for _ in range(12):
                output, state = model(symbol, state)
                loss = loss + output.mean()
                symbol = (output.detach().view(1, 1) > 0).long()
            loss.backward()
            state = None
            for symbol in prime:
                _, state = model(symbol.view(1, 1), state)
    assert seen.faults == []


def test_a_loss_is_no_call_of_the_model():
    """Without an optimiser so many calls of the model are watched."""
    model, loss, state = Model(), nn.MSELoss(), None
    with watch(updates=4) as seen:
        for batch in chunks(6):
            output, state = model(batch, state)
            loss(output, torch.zeros_like(output)).backward()
            state = detached(state)
    assert len(seen._calls.calls) == 4


def test_samples_one_by_one_carry_no_state():
    data = torch.randn(20, 6, 3)
    with watch() as seen:
        core = nn.GRU(3, 4, batch_first=True)
        for sample in data.split(1):
            core(sample)[0].mean().backward()
    assert seen.faults == []


def test_streams_read_in_groups_are_other_sequences():
    """Streams 4 to 7 begin with the state of streams 0 to 3."""
    streams, model, state = torch.randn(8, 30, 3), Model(batch_first=True), None
    with watch() as seen:
        for group in streams.split(4):
            for chunk in group.split(6, dim=1):
                output, state = model(chunk, state)
                state = tuple(field.detach() for field in state)
                output.mean().backward()
    assert [finding.kind for finding in seen.faults] == ["other-sequence"]


@pytest.mark.parametrize("hours", [torch.randn(1, 30, 1), torch.randn(4, 6, 1).repeat(1, 5, 1)], ids=["rows", "calls"])
def test_a_feature_that_is_shared_tells_no_place(hours):
    """By rows, or by the calls: the hour of the day."""
    data, model, state = torch.randn(4, 30, 2), Model(batch_first=True), None
    with watch() as seen:
        for begin in range(0, 30, 6):
            part = slice(begin, begin + 6)
            read = torch.cat([hours[:, part].expand(4, -1, -1), data[:, part]], 2)
            output, state = model(read, state)
            state = tuple(field.detach() for field in state)
            output.mean().backward()
    assert seen.faults == []


def test_samples_that_are_stepped_one_by_one_begin_with_zeros():
    """As the encoder of a small translator."""
    data, core = torch.randn(20, 6, 1, 3), nn.GRU(3, 4)
    with watch() as seen:
        for sample in data:
            state, loss = torch.zeros(1, 1, 4), 0
            for step in sample:
                output, state = core(step[None], state)
                loss = loss + output.mean()
            loss.backward()
    assert seen.faults == []
