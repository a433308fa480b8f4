"""Models that are watched, and what they read."""

import torch
from torch import nn


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


def series(steps=24, rows=2):
    return torch.randn(steps, rows, 3, generator=torch.Generator().manual_seed(1))


def chunks(number=6, steps=4, rows=2):
    return series(number * steps, rows).split(steps) if number else ()


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
