"""`watch` where only one tensor of an LSTM's state goes on: half of what was read is gone."""

import pytest
import torch
from support.loops import Reader, detached, drop, train
from support.watched_models import kinds
from torch import nn

from echo_torch import watch

ROWS, STEPS = 4, 6
STREAM = torch.randn(ROWS, STEPS * 14, 3, generator=torch.Generator().manual_seed(1))


def without(number):
    """Hand on one of the two alone."""

    def hand_on(state):
        return tuple(torch.zeros_like(field) if which == number else field for which, field in enumerate(state))

    return hand_on


@pytest.mark.parametrize("number", [0, 1])
def test_half_of_a_state_is_lost_between_chunks(number):
    with watch() as seen:
        train(Reader(nn.LSTM, batch_first=True), STREAM.split(STEPS, 1), lambda state: without(number)(detached(state)))
    assert kinds(seen) == [("state-lost", "core", 13, 13)]
    assert "one tensor of the state is zero" in seen.faults[0].sentence


class Stepped(nn.Module):
    """A cell, and what stands between two of its steps, in front of the first, and behind a chunk."""

    def __init__(self, inside=lambda state: state, begin=lambda read: None, between=detached):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.LSTMCell(3, 5), nn.Linear(5, 1)
        self.inside, self.begin, self.between, self.state = inside, begin, between, None

    def forward(self, read, state=None):
        state, outputs = self.begin(read) if self.state is None else self.state, []
        for step in read.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0])
            state = self.inside(state)
        self.state = None if state is None else self.between(state)
        return self.head(torch.stack(outputs)), None


@pytest.mark.parametrize("number", [0, 1])
def test_half_of_a_state_is_lost_at_each_step(number):
    with watch() as seen:
        train(Stepped(without(number)), STREAM.split(STEPS, 1), drop)
    assert kinds(seen) == [("state-lost", "cell", 13, 13)]
    with watch() as seen:
        train(Stepped(without(number), between=lambda state: None), STREAM.split(STEPS, 1), drop)
    assert ("state-lost", "cell", 5 * 14, 5 * 14) in kinds(seen)


def test_half_of_a_state_is_lost_where_chunks_of_steps_begin():
    with watch() as seen:
        train(Stepped(between=lambda state: without(1)(detached(state))), STREAM.split(STEPS, 1), drop)
    assert kinds(seen) == [("state-lost", "cell", 13, 13)]


def test_a_few_calls_may_mean_to():
    parts = STREAM.split(STEPS, 1)
    for number, expected in ((5, []), (6, [("state-lost", "core", 5, 5)])):
        with watch() as seen:
            train(Reader(nn.LSTM, batch_first=True), parts[:number], lambda state: without(0)(detached(state)))
        assert kinds(seen) == expected
    halves = iter([0, 1] * 7)
    with watch() as seen:  # as often both go on

        def hand_on(state):
            return without(0)(detached(state)) if next(halves) else detached(state)

        train(Reader(nn.LSTM, batch_first=True), parts, hand_on)
    assert kinds(seen) == []


def test_a_first_state_may_be_half_of_another_layers():
    """As a decoder begins with what an encoder has left, and with empty cells."""
    encoder = nn.LSTM(3, 5, batch_first=True)

    def begin(read):
        hidden = encoder(read)[1][0][0]
        return hidden, torch.zeros_like(hidden)

    with watch() as seen:
        train(Stepped(begin=begin, between=lambda state: None), torch.randn(14, ROWS, STEPS, 3), drop)
    assert kinds(seen) == []
    with watch() as seen:
        train(Reader(nn.GRU, batch_first=True), STREAM.split(STEPS, 1))
    assert kinds(seen) == []


class Translator(nn.Module):
    """The decoder reads all steps at once, from the hidden state of the encoder."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.GRU(3, 5, batch_first=True), nn.LSTM(3, 5, batch_first=True)

    def forward(self, read, state=None):
        hidden = self.encoder(read)[1]
        return self.decoder(read.flip(1), (hidden, torch.zeros_like(hidden)))


def test_a_decoder_that_reads_all_at_once_may_begin_so():
    with watch() as seen:
        train(Translator(), torch.randn(14, ROWS, STEPS, 3), drop)
    assert kinds(seen) == []


def test_an_evaluation_may_do_so():
    model = Reader(nn.LSTM, batch_first=True)
    model.eval()
    with watch() as seen:
        train(model, STREAM.split(STEPS, 1), lambda state: without(0)(detached(state)))
    assert kinds(seen) == []
