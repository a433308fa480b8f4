"""A trained recurrent controller is run step by step on recorded observations, as after an export
where the state is an extra input and output. Mended: the state that comes out of a step is given
to the next one.
"""

import torch
from torch import nn


class Controller(nn.Module):
    def __init__(self, observations=3, hidden_size=12):
        super().__init__()
        self.rnn = nn.LSTM(observations, hidden_size, batch_first=True)
        self.action = nn.Linear(hidden_size, 1)

    def forward(self, observation, hidden, cell):
        output, (new_hidden, new_cell) = self.rnn(observation, (hidden, cell))
        return self.action(output), new_hidden, new_cell


def record(steps):
    time = torch.arange(steps) * 0.25
    observations = torch.stack([time.sin(), time.cos(), 0.3 * (3 * time).sin()], dim=1)
    actions = -0.5 * time.sin()
    return observations + 0.05 * torch.randn(steps, 3), actions


def main():
    torch.manual_seed(18)
    observations, actions = record(40)
    controller = Controller()
    controller.eval()
    hidden = torch.zeros(1, 1, 12)
    cell = torch.zeros(1, 1, 12)
    with torch.no_grad():
        for observation, wanted in zip(observations, actions):
            action, hidden, cell = controller(observation.view(1, 1, -1), hidden, cell)
            loss = (action.squeeze() - wanted).square()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
