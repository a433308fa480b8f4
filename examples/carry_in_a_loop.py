"""`Carry` in a plain loop: floats in, floats out, saved on the way and gone on with exactly."""

import torch
from torch import nn

from echo_torch import Carry

LANES, STEPS = 8, 10
torch.set_num_threads(1)  # faster than two at this size


class Echo(nn.Module):
    """Says the number of two steps ago. Its state is nn.GRU's own tensor."""

    def __init__(self):
        super().__init__()
        self.core, self.head = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 1)

    def initial_state(self, num_lanes):
        return torch.zeros(1, num_lanes, self.core.hidden_size)

    def forward(self, inputs, state):
        output, state = self.core(inputs + 0.01 * torch.randn_like(inputs), state)  # the random state counts too
        return self.head(output), state


def batch(number):
    """Eight series of noise, ten steps of each at a time; every fifth batch a new one begins in each lane."""
    series, place = divmod(number, 5)
    cut = slice(place * STEPS, (place + 1) * STEPS)
    noise = torch.randn(LANES, 5 * STEPS, 1, generator=torch.Generator().manual_seed(series))
    echo = nn.functional.pad(noise, (0, 0, 2, 0))
    return torch.full((LANES,), place == 0), noise[:, cut], echo[:, cut]


def train(num_updates, checkpoint=None):
    torch.manual_seed(0)
    model = Echo()
    optimizer, carry = torch.optim.RMSprop(model.parameters(), lr=1e-2), Carry(model.initial_state)
    parts = {"model": model, "optimizer": optimizer, "carry": carry}
    for name, saved in (checkpoint or {}).items():
        parts[name].load_state_dict(saved)
    for number in range(carry.cursor, num_updates):
        starts, inputs, targets = batch(number)
        optimizer.zero_grad()
        outputs, state = model(inputs, carry.begin(starts))
        carry.end(state, cursor=number + 1)
        loss = nn.functional.mse_loss(outputs, targets)
        loss.backward()
        optimizer.step()
    return loss.item(), {name: part.state_dict() for name, part in parts.items()}


if __name__ == "__main__":
    whole, _ = train(500)
    torch.save(train(213)[1], "half.pt")
    resumed, _ = train(500, torch.load("half.pt", weights_only=True))
    print(f"loss {whole:.6f} after 500 updates; saved after 213 and gone on with: {resumed:.6f}")
    assert whole == resumed
