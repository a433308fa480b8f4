"""`watch` where a state enters that no call has left."""

import pytest
import torch
from support.loops import Reader, detached, drop, train
from torch import nn

from echo_torch import watch

ROWS = 4
DATA = torch.randn(60, ROWS, 3, generator=torch.Generator().manual_seed(1))
CHUNKS = DATA.split(5)


def each(change):
    """The same change of all fields of a state, detached."""

    def hand_on(state):
        fields = detached(state)
        return change(fields) if isinstance(fields, torch.Tensor) else tuple(map(change, fields))

    return hand_on


MEAN = each(lambda field: field.mean(1, keepdim=True).expand_as(field).contiguous())
FAULTY = {
    "mean": (nn.LSTM, MEAN, "mean over the rows"),
    "mean of a GRU's": (nn.GRU, MEAN, "mean over the rows"),
    "sum": (nn.GRU, each(lambda field: field.sum(1, keepdim=True).repeat(1, ROWS, 1)), "sum over the rows"),
    "half": (nn.LSTM, each(lambda field: 0.5 * field), "multiple"),
    "turned round": (nn.RNN, each(torch.neg), "multiple"),
    "by view": (nn.LSTM, each(lambda field: field.view(1, 5, ROWS).transpose(1, 2).contiguous()), "another order"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_what_a_strange_state_is(name):
    kind, hand_on, words = FAULTY[name]
    with watch() as seen:
        train(Reader(kind), CHUNKS, hand_on)
    findings = [finding for finding in seen.faults if finding.kind == "foreign-state"]
    assert {finding.kind for finding in seen.faults} == {"foreign-state"}
    assert [(finding.count, finding.of) for finding in findings] == [(11, 12)]
    assert words in findings[0].sentence


DRAWN = {
    "randn": (nn.GRU, lambda: torch.randn(1, ROWS, 5)),
    "scaled": (nn.LSTM, lambda: tuple(0.1 * torch.rand(ROWS, 1, 5).transpose(0, 1) for _ in "hc")),
    "in place": (nn.GRU, lambda: torch.empty(1, ROWS, 5).uniform_(-1, 1)),
}


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_a_first_state_that_is_noise(name, goes_on):
    """It may be meant, so it is no fault; where rows go on exactly where they stopped, their state is gone."""
    kind, draw = DRAWN[name]
    chunks = CHUNKS if goes_on else [torch.randn(5, ROWS, 3) for _ in CHUNKS]
    with watch() as seen:
        train(Reader(kind), chunks, lambda state: draw(), state=draw())
    kinds = [(finding.kind, finding.count, finding.of) for finding in seen.faults]
    assert kinds == ([("state-lost", 44, 44)] if goes_on else [])
    assert [text for text in seen.unknown if "the state is" in text] == [
        "core: at 12 of 12 beginnings the state is random numbers that are drawn anew: it is not known whether that is "
        "meant."
    ]


def test_the_layers_of_a_state_are_exchanged_with_its_rows():
    """A view of (layers, rows, features) as (rows, layers, features), and back by a transpose."""
    model = Reader(nn.GRU, num_layers=2)
    with watch() as seen:
        train(model, CHUNKS, each(lambda field: field.view(ROWS, 2, 5).transpose(0, 1).contiguous()))
    assert [finding.kind for finding in seen.faults] == ["foreign-state"]
    assert "another order" in seen.faults[0].sentence


def test_cells():
    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(3, 5), nn.Linear(5, 1)

        def forward(self, read, state):
            for step in read:
                state = self.cell(step, state)
            return self.head(state), state

    with watch() as seen:
        train(Stepped(), CHUNKS, each(lambda field: field.mean(0, keepdim=True).expand_as(field)))
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [("foreign-state", 11, 12)]


# --- healthy ----------------------------------------------------------------------------------------------------


def drawn_once():
    train(Reader(), CHUNKS, state=torch.randn(1, ROWS, 5))


def drawn_for_two_calls():
    train(Reader(), CHUNKS[:2], lambda state: torch.randn(1, ROWS, 5), state=torch.randn(1, ROWS, 5))


def mean_with_its_graph():
    """Two chunks an update: the model hands the mean on, and learns through it."""
    model = Reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for one, other in zip(CHUNKS[::4], CHUNKS[2::4], strict=True):
        optimizer.zero_grad()
        output, state = model(one)
        output, _ = model(other, state.mean(1, keepdim=True).expand(1, ROWS, 5).contiguous())
        output.square().mean().backward()
        optimizer.step()


def mean_of_a_first_pass():
    """The layer reads the same twice in a call, first for a state that it begins with."""
    make = lambda model, read: model.core(read)[1].detach().mean(1, keepdim=True).repeat(1, ROWS, 1)  # noqa: E731
    train(Made(make), CHUNKS[::2], drop)


def one_draw_for_all():
    first = torch.randn(1, ROWS, 5)
    train(Reader(), CHUNKS[::2], lambda state: first, state=first)


def learned():
    first = nn.Parameter(torch.randn(1, ROWS, 5))
    train(Reader(), CHUNKS[::2], lambda state: first, state=first)


class Made(Reader):
    """The first state is made by the model, of what it reads or of what an encoder leaves."""

    def __init__(self, make):
        super().__init__()
        self.make, self.encoder, self.first = make, nn.GRU(3, 5), nn.Linear(3, 5)

    def forward(self, read, state=None):
        return super().forward(read, self.make(self, read))


def made_of_noise():
    train(Made(lambda model, read: model.first(torch.randn(1, ROWS, 3))), CHUNKS[::2], drop)


def mean_of_an_encoder():
    make = lambda model, read: model.encoder(read)[1].mean(1, keepdim=True).expand(1, ROWS, 5).contiguous()  # noqa: E731
    train(Made(make), CHUNKS[::2], drop)


def of_an_encoder_that_does_not_learn():
    @torch.no_grad()
    def make(model, read):
        return 0.5 * model.encoder(read)[1]

    train(Made(make), CHUNKS[::2], drop)


def features_from_the_data():
    """A state is read from a table of features, as that of an image."""
    features = torch.randn(12, 1, ROWS, 5)
    model = Reader()
    for number, chunk in enumerate(CHUNKS):
        train(model, [chunk], drop, state=features[number])


def other_precision():
    train(Reader(nn.LSTM), CHUNKS, each(lambda field: field.half().float()))
    train(Reader(nn.LSTM), CHUNKS, each(lambda field: field.double().float()))
    train(Reader(nn.LSTM), CHUNKS, each(lambda field: torch.round(field, decimals=6)))


def by_numpy():
    train(Reader(), CHUNKS, each(lambda field: torch.from_numpy(field.numpy().copy())))


def some_rows_anew():
    def hand_on(state):
        state = state.detach().clone()
        state[:, 1] = torch.randn(5)
        return state

    train(Reader(), CHUNKS, hand_on)


def decay_in_an_evaluation():
    model, state = Reader(), None
    train(model, CHUNKS)
    model.eval()
    with torch.no_grad():
        for chunk in CHUNKS:
            _, state = model(chunk, state)
            state = state.mean(1, keepdim=True).repeat(1, ROWS, 1)


HEALTHY = [
    drawn_once, drawn_for_two_calls, mean_with_its_graph, mean_of_a_first_pass, one_draw_for_all,
    learned, made_of_noise, mean_of_an_encoder, of_an_encoder_that_does_not_learn,
    features_from_the_data, other_precision, by_numpy, some_rows_anew, decay_in_an_evaluation,
]  # fmt: skip


@pytest.mark.parametrize("loop", HEALTHY, ids=lambda loop: loop.__name__)
def test_states_that_look_strange(loop):
    with watch() as seen:
        loop()
    assert [finding.kind for finding in seen.faults if finding.kind == "foreign-state"] == []
    assert len(seen._calls.calls) >= 2


def test_few_values_are_alike_by_chance():
    """A state of one value is a multiple of any other."""
    model = Reader()
    model.core, model.head = nn.GRU(3, 1), nn.Linear(1, 1)
    with watch() as seen:
        train(model, [chunk[:, :1] for chunk in CHUNKS], lambda state: torch.tensor([[[0.3]]]))
    assert seen.faults == []


BRIDGE = nn.Linear(8, 8)


def side_by_side(hidden):
    return torch.cat([hidden[-2], hidden[-1]], 1)[None]


@pytest.mark.parametrize(
    ("bridge", "layers", "rows", "count"),
    [
        (lambda hidden: hidden.view(1, hidden.shape[1], -1), 1, 5, 6),
        (lambda hidden: hidden.view(2, hidden.shape[1], -1)[-1:], 2, 5, 0),  # of a part it cannot be told
        (lambda hidden: hidden.view(1, hidden.shape[1], -1), 1, 1, 0),  # of one row it is right
        (side_by_side, 1, 5, 0),
        (lambda hidden: hidden.transpose(0, 1).reshape(1, hidden.shape[1], -1), 1, 5, 0),
        (lambda hidden: BRIDGE(side_by_side(hidden)), 1, 5, 0),
    ],
)
def test_a_view_of_two_directions_as_one_layer_mixes_rows(bridge, layers, rows, count):
    """As between an encoder that reads both ways and its decoder."""
    torch.manual_seed(0)
    encoder, decoder = nn.GRU(3, 4, layers, bidirectional=True), nn.GRU(3, 8)
    with watch() as seen:
        for _ in range(6):
            _, hidden = encoder(torch.randn(7, rows, 3))
            decoder(torch.randn(5, rows, 3), bridge(hidden))[0].mean().backward()
    found = [(finding.kind, finding.module, finding.count, finding.of) for finding in seen.faults]
    assert found == ([("foreign-state", "the second GRU", count, 6)] if count else [])
