"""Sensor windows go through an LSTM and each window begins with an empty state. Mended: the layer
makes that first state itself, for as many rows as the batch has, so that the last batch, of 3
rows, runs too.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BATCH_SIZE = 16


class SensorModel(nn.Module):
    def __init__(self, sensors=3, hidden_size=12):
        super().__init__()
        self.lstm = nn.LSTM(sensors, hidden_size, batch_first=True)
        self.linear = nn.Linear(hidden_size, 1)

    def forward(self, window):
        output, _ = self.lstm(window)
        return self.linear(output[:, -1]).squeeze(-1)


def make_windows(count, steps=10, sensors=3):
    time = torch.arange(steps) * 0.3
    phase = 6.28 * torch.rand(count, 1, sensors)
    windows = torch.sin(time.view(1, steps, 1) + phase) + 0.1 * torch.randn(count, steps, sensors)
    return windows, windows[:, -3:].mean(dim=(1, 2))


def main():
    torch.manual_seed(4)
    windows, targets = make_windows(403)
    loader = DataLoader(TensorDataset(windows, targets), batch_size=BATCH_SIZE, shuffle=True)
    model = SensorModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for window, target in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(window), target)
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
