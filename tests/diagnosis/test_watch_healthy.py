"""`watch` over loops that look dangerous and are none."""

import copy

import pytest
import torch
from support.loops import detached, train
from support.watched_models import Model, Stepped, chunks, series
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from echo_torch import watch


def two_chunks_a_graph(model):
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for one, other in series().view(3, 2, 4, 2, 3):
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
    for one, other in series().view(3, 2, 4, 2, 3):
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
