"""The same echo by regression: numbers go in as floats, one float comes out, and rounding makes a number of it.

The tutorial asks for one of 100 classes. A regression is asked how far off it is, and is less often right.
"""

import itertools

import torch
from torch import nn

from echo_torch import Carry, EchoStream, LaneLayout, RandomSymbols
from echo_torch.data import NOT_ASKED

NUM_SYMBOLS, NUM_UPDATES = 100, 3000
torch.set_num_threads(1)  # faster than two at this size


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.core, self.head = nn.LSTM(1, 50, batch_first=True), nn.Linear(50, 1)

    def initial_state(self, num_lanes):
        return tuple(torch.zeros(1, num_lanes, self.core.hidden_size) for _ in range(2))

    def forward(self, symbols, state):
        output, state = self.core(symbols[..., None] / (NUM_SYMBOLS - 1), state)  # from 0 to 1
        return self.head(output)[..., 0] * (NUM_SYMBOLS - 1), state


def echo(split):
    """The number one step ago, 32 lanes, chunks of 5."""
    return EchoStream(LaneLayout(num_lanes=32, chunk_length=5, lag=1), RandomSymbols(NUM_SYMBOLS, split=split))


if __name__ == "__main__":
    torch.manual_seed(1)
    model = Regression()
    optimizer, carry = torch.optim.Adam(model.parameters(), lr=3e-3), Carry(model.initial_state)
    for chunk in itertools.islice(echo("training"), NUM_UPDATES):
        guesses, state = model(chunk.symbols, carry.begin(chunk.starts))
        carry.end(state)
        asked = chunk.targets != NOT_ASKED
        loss = (guesses - chunk.targets).square()[asked].mean() / NUM_SYMBOLS**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    errors, carry = [], Carry(model.initial_state)
    with torch.no_grad():
        for chunk in itertools.islice(echo("evaluation"), 150):
            guesses, state = model(chunk.symbols, carry.begin(chunk.starts))
            carry.end(state)
            errors.append((guesses - chunk.targets)[chunk.targets != NOT_ASKED].abs())
    off = torch.cat(errors)
    print(
        f"off by {off.mean().item():.2f} on average; rounded to the right number in {(off < 0.5).double().mean():.1%}"
    )
