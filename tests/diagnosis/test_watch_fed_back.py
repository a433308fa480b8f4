"""`watch`: what the model has made of its own output says nothing of where it reads; the data beside it do."""

import pytest
import torch
from support.loops import detached
from support.watched_models import kinds
from torch import nn

from echo_torch import watch

ROWS, STEPS, CHUNKS = 3, 4, 12
SERIES = torch.randn(ROWS, STEPS * CHUNKS, 2, generator=torch.Generator().manual_seed(1))
SHUFFLED = torch.randperm(CHUNKS, generator=torch.Generator().manual_seed(2)).tolist()


class Tracker(nn.Module):
    """Each step reads a measurement and the estimate of the step before."""

    def __init__(self, join, estimate):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out, self.join, self.estimate = nn.GRUCell(4, 5), nn.Linear(5, 2), join, estimate

    def forward(self, read, state, before):
        for measured in read.unbind(1):
            state = self.cell(self.join(measured, before), state)
            before = self.estimate(before, self.out(state))
        return state, before


def learn(model, order, state, before):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch() as seen:
        for chunk in order:
            read = SERIES[:, chunk * STEPS : (chunk + 1) * STEPS]
            optimizer.zero_grad()
            state, before = model(read, state, before)
            (before if before.requires_grad else state).square().mean().backward()
            optimizer.step()
            state, before = detached(state), before.detach()
    return seen


@pytest.mark.parametrize("estimate", [torch.add, lambda before, found: found, lambda before, found: found.detach()])
@pytest.mark.parametrize(
    "join",
    [
        lambda measured, before: torch.cat([measured, before], -1),
        lambda measured, before: torch.cat((before, measured), dim=1),
        lambda measured, before: torch.hstack([before, measured]),
    ],
)
def test_data_beside_a_feature_of_the_model_say_where_a_step_stands(join, estimate):
    start = torch.zeros(ROWS, 5), torch.zeros(ROWS, 2)
    healthy = learn(Tracker(join, estimate), range(CHUNKS), *start)
    assert (healthy.faults, healthy.unknown) == ([], [])
    assert healthy.reach().gaps == {0: ROWS * (STEPS * CHUNKS - 1)}
    assert [kind for kind, *_ in kinds(learn(Tracker(join, estimate), SHUFFLED, *start))] == ["shuffled"]


class Decoder(nn.Module):
    """Reads one step, and then its own outputs."""

    def __init__(self, feed_back):
        super().__init__()
        self.cell, self.out, self.feed_back = nn.LSTMCell(2, 5), nn.Linear(5, 2), feed_back

    def forward(self, read, state, before):
        value = read[:, 0]
        for _ in range(STEPS):
            state = self.cell(value, state)
            value = self.feed_back(self.out(state[0]))
        return state, value


@pytest.mark.parametrize("feed_back", [lambda value: value, torch.relu, torch.Tensor.clone, lambda value: value[:, :2]])
def test_a_step_that_reads_its_own_output_stands_nowhere(feed_back):
    """It would be where the step before has read, and a row would seem to read that again."""
    seen = learn(Decoder(feed_back), range(CHUNKS), None, None)
    known = [call.standing is not None for call in seen._calls.calls]
    assert known == [True, *[False] * (STEPS - 1)] * CHUNKS
    assert seen.faults == []
    assert not any("gap" in line for line in seen.lines())
    assert any(f"at {ROWS * (CHUNKS - 1)} of {ROWS * (CHUNKS - 1)} hand-overs" in said for said in seen.unknown)


def test_layers_above_one_another_stand_where_the_lowest_reads():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = (
                nn.GRU(2, 5, batch_first=True),
                nn.GRU(5, 5, batch_first=True),
                nn.Tanh(),
            )

        def forward(self, read, state, before):
            features, first = self.first(read, None if state is None else state[0])
            features, second = self.second(self.out(features), None if state is None else state[1])
            return (first, second), features

    seen = learn(Stack(), range(CHUNKS), None, None)
    assert [line for line in seen.lines() if "gap: 0" in line] == seen.lines()[2:4]
