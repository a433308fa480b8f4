"""`watch` beside recurrences that are written by hand, and beside modules that only look so."""

import weakref

import pytest
import torch
from support.loops import Reader, detached, train
from torch import nn

from echo_torch import watch

ROWS = 4
DATA = torch.randn(60, ROWS, 3, generator=torch.Generator().manual_seed(1))
CHUNKS = DATA.split(5)


def learn(model, batches, *states):
    """An update for each batch; a model that gives states gets them again, detached."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for batch in batches:
        optimizer.zero_grad()
        output = model(batch, *states)
        if states:
            output, *states = output
            states = [detached(state) for state in states]
        output.square().mean().backward()
        optimizer.step()


class Cell(nn.Module):
    """A step of a recurrence."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.read, self.keep = nn.Linear(3, 5), nn.Linear(5, 5)

    def forward(self, step, hidden):
        hidden = torch.tanh(self.read(step) + self.keep(hidden))
        return hidden, hidden


class Unrolled(nn.Module):
    """Steps a cell, inside a call."""

    def __init__(self):
        super().__init__()
        self.cell = Cell()

    def forward(self, read):
        hidden, outputs = torch.zeros(ROWS, 5), []
        for step in read:
            output, hidden = self.cell(step, hidden)
            outputs.append(output)
        return torch.stack(outputs)


class Gated(nn.Module):
    """Two fields in a tuple, and another word for the state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gates = nn.Linear(3 + 5, 20)

    def forward(self, step, *, state):
        hidden, cells = state
        i, f, g, o = self.gates(torch.cat([step, hidden], dim=1)).chunk(4, dim=1)
        cells = f.sigmoid() * cells + i.sigmoid() * g.tanh()
        return o.sigmoid() * cells.tanh(), (o.sigmoid() * cells.tanh(), cells)


class Keeping(nn.Module):
    """A state that is kept on the module: replaced, or written into a buffer."""

    def __init__(self, *, is_buffer=False):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.is_buffer = nn.Linear(3 + 5, 5), is_buffer
        if is_buffer:
            self.register_buffer("hidden", torch.zeros(ROWS, 5))
        else:
            self.hidden = torch.zeros(ROWS, 5)

    def forward(self, read):
        hidden = self.hidden.detach().clone() if self.is_buffer else self.hidden
        for step in read:
            hidden = torch.tanh(self.mix(torch.cat([step, hidden], dim=1)))
        if self.is_buffer:
            self.hidden.copy_(hidden.detach())
        else:
            self.hidden = hidden.detach()
        return hidden


def a_cell_in_a_loop():
    learn(Unrolled(), CHUNKS)
    return "cell", 12 * 4, 60


def a_step_an_update():
    learn(Cell(), DATA, torch.zeros(ROWS, 5))
    return "Cell", 49, 50


def copies_of_the_state():
    model, hidden = Cell(), torch.zeros(ROWS, 5)
    for step in DATA:
        output, hidden = model(step, hidden)
        output.mean().backward()
        hidden = hidden.detach().clone()
    return "Cell", 49, 50


def two_fields_by_name():
    model, state = Gated(), (torch.zeros(ROWS, 5), torch.zeros(ROWS, 5))
    for step in DATA:
        output, state = model(step, state=state)
        output.mean().backward()
        state = detached(state)
    return "Gated", 49, 50


def kept_and_replaced():
    learn(Keeping(), CHUNKS)
    return "Keeping", 12, 12


def kept_in_a_buffer():
    learn(Keeping(is_buffer=True), CHUNKS)
    return "Keeping", 12, 12


FAULTY = [
    a_cell_in_a_loop,
    a_step_an_update,
    copies_of_the_state,
    two_fields_by_name,
    kept_and_replaced,
    kept_in_a_buffer,
]


@pytest.mark.parametrize("loop", FAULTY, ids=lambda loop: loop.__name__)
def test_recurrences_by_hand(loop):
    with watch() as seen:
        module, count, of = loop()
    assert [(finding.kind, finding.module, finding.count, finding.of) for finding in seen.faults] == [
        ("unwatched", module, count, of)
    ]
    assert "`probe`" in seen.faults[0].sentence


def test_the_innermost_is_named_as_the_model_calls_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Cell()

        def forward(self, read, hidden):
            for step in read:
                _, hidden = self.inner(step, hidden)
            return hidden, hidden

    model = Model()
    with watch(model) as seen:
        learn(model, CHUNKS, torch.zeros(ROWS, 5))
    assert [(finding.kind, finding.module) for finding in seen.faults] == [("unwatched", "inner")]


# --- healthy ----------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A module whose forward is given, and what it keeps."""

    def __init__(self, forward, **kept):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.given = nn.Linear(3, 5), nn.Linear(5, 5), forward
        for name, part in kept.items():
            setattr(self, name, part)

    def forward(self, *read):
        return self.given(self, *read)


def layers_of_torch():
    train(Reader(), CHUNKS)
    train(Reader(nn.LSTM), CHUNKS)


def keeps_what_it_shows():
    """Its weights over steps are kept to be drawn, and are not read again."""

    def forward(model, read):
        model.shown = torch.softmax(model.one(read), dim=-1)
        return model.two(model.shown)

    learn(Plain(forward, shown=torch.zeros(5, ROWS, 5)), CHUNKS)


def own_norm():
    def forward(model, read):
        features = model.one(read)
        model.mean = 0.9 * model.mean + 0.1 * features.detach().mean(0).mean(0, keepdim=True)
        return model.two(features - model.mean)

    learn(Plain(forward, mean=torch.zeros(1, 5)), CHUNKS)


def norms_of_torch():
    learn(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 1)), [chunk[:4] for chunk in CHUNKS])


def code_book():
    """Vectors that follow the data: used and changed, but not a row for each row."""

    def forward(model, read):
        features = model.one(read)
        near = torch.cdist(features.flatten(0, 1), model.codes).argmin(1)
        model.codes = model.codes.index_add(0, near, 0.01 * features.detach().flatten(0, 1))
        return model.two(model.codes[near]) + features.flatten(0, 1)

    learn(Plain(forward, codes=torch.randn(7, 5)), CHUNKS)


def counters():
    def forward(model, read):
        model.calls = model.calls + 1
        return model.two(model.one(read)) / model.calls[:, None]

    learn(Plain(forward, calls=torch.zeros(ROWS, dtype=torch.long)), CHUNKS)


def one_block_several_times():
    """A block that is shared by all depths, with a mask that is the same for all."""
    block = Plain(lambda model, features, mask: torch.relu(model.two(features)) * mask)

    def forward(model, read):
        features, mask = model.one(read), torch.ones(ROWS, 1)
        for _ in range(3):
            features = block(features, mask)
        return features

    learn(Plain(forward), CHUNKS)


def blocks_of_one_argument():
    block = Plain(lambda model, features: torch.relu(model.two(features)))
    learn(Plain(lambda model, read: block(block(block(model.one(read))))), CHUNKS)


def evaluated_alone():
    model = Cell().eval()
    hidden = torch.zeros(ROWS, 5)
    with torch.no_grad():
        for step in DATA:
            _, hidden = model(step, hidden)


def attention_beside_a_layer():
    """A decoder's attention reads states of a layer of torch."""

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = Plain(lambda model, state, memory: torch.softmax(model.two(memory) * state, 0).sum(0))
            self.cell = nn.GRUCell(3 + 5, 5)

        def forward(self, read):
            hidden, memory = torch.zeros(ROWS, 5), torch.randn(6, ROWS, 5)
            for step in read:
                hidden = self.cell(torch.cat([step, self.attend(hidden, memory)], dim=1), hidden)
            return hidden

    learn(Decoder(), CHUNKS[::-1])  # none goes on where the one before stopped


HEALTHY = [
    layers_of_torch, keeps_what_it_shows, own_norm, norms_of_torch, code_book, counters, one_block_several_times,
    blocks_of_one_argument, evaluated_alone, attention_beside_a_layer,
]  # fmt: skip


@pytest.mark.parametrize("loop", HEALTHY, ids=lambda loop: loop.__name__)
def test_modules_that_look_recurrent(loop):
    with watch() as seen:
        loop()
    assert seen.faults == []


def test_nothing_is_kept_alive():
    model, kept = Cell(), []
    with watch() as seen:
        hidden = torch.zeros(ROWS, 5)
        for step in DATA[:10]:
            hidden = model(step, hidden)[1].detach()
            kept.append(weakref.ref(hidden))
    del hidden
    assert seen._calls.by_hand._open == []
    assert sum(each() is not None for each in kept) == 0
    assert not any(known.given for known in seen._calls.by_hand._modules.values())


def test_an_error_inside_leaves_nothing_open():
    def forward(model, read):
        raise KeyError("stop")

    with watch() as seen:
        with pytest.raises(KeyError):
            Plain(forward, kept=torch.zeros(ROWS, 5))(DATA)
        assert seen._calls.by_hand._open == []
        assert seen._calls.by_hand._kept == {}
