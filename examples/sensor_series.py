"""Sensor series of unequal length through one stream: a network says the next reading of each.

The stream reads whole series, one after another on each lane, and resets a lane's state where a series begins.
"""

import itertools

import numpy as np
import torch
from torch import nn

from echo_torch import Carry, EchoStream, reach
from echo_torch.data import OwnSeries, SeriesLayout

torch.set_num_threads(1)  # faster than two at this size


class Forecast(nn.Module):
    def __init__(self):
        super().__init__()
        self.core, self.head = nn.GRU(2, 24, batch_first=True), nn.Linear(24, 2)

    def initial_state(self, num_lanes):
        return torch.zeros(1, num_lanes, self.core.hidden_size)

    def forward(self, readings, state):
        output, state = self.core(readings, state)
        return self.head(output), state


def make_stream(lengths, seed):
    """Two sensors on a turning wheel, each series at a speed and phase of its own."""
    draw = np.random.default_rng(seed)
    angles = [draw.uniform(0, 6) + draw.uniform(0.1, 0.6) * np.arange(length) for length in lengths]
    series = OwnSeries([np.stack([np.sin(angle), np.cos(angle)], axis=1) for angle in angles])
    layout = SeriesLayout(series.lengths, num_lanes=4, chunk_length=10)
    # What is asked is a function of places: the next reading, which is missing at the end of a series.
    return EchoStream(layout, series, targets=lambda sequence, step: series(sequence, step + 1))


def squared_error(outputs, targets):
    asked = ~targets.isnan()
    return (outputs - targets.nan_to_num()).square()[asked].mean()


if __name__ == "__main__":
    torch.manual_seed(1)
    stream = make_stream([120, 35, 260, 80, 150, 47, 95, 210], seed=1)
    print("gap between chunks:", reach(itertools.islice(stream, 27), lag=0).gap)
    model = Forecast()
    optimizer, carry = torch.optim.Adam(model.parameters(), lr=1e-2), Carry(model.initial_state)
    for chunk in itertools.islice(stream, 600):
        outputs, state = model(chunk.symbols, carry.begin(chunk.starts))
        carry.end(state)
        loss = squared_error(outputs, chunk.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"squared error of the next reading: {loss.item():.4f} (of a guess of 0: 0.5)")
