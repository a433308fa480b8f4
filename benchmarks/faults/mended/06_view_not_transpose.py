"""Windows of an autoregressive series are turned into the (steps, samples, features) layout that
nn.LSTM reads, and the whole set is one batch. Mended: the layout is made with a transpose, so that
each row holds the values of one window in their order.
"""

import numpy as np
import torch
from torch import nn

WINDOW = 6
SAMPLES = 80


class Baseline(nn.Module):
    def __init__(self, hidden_size=16):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden_size)
        self.linear = nn.Linear(hidden_size, 1)

    def forward(self, windows):
        output, _ = self.lstm(windows)
        return self.linear(output[-1]).view(-1)


def autoregressive_series(length, generator):
    series = [0.0, 0.0]
    for noise in generator.normal(0.0, 0.3, length):
        series.append(1.2 * series[-1] - 0.5 * series[-2] + noise)
    return np.array(series[2:], dtype=np.float32)


def main():
    torch.manual_seed(6)
    series = autoregressive_series(SAMPLES + WINDOW, np.random.default_rng(6))
    windows = np.stack([series[i : i + WINDOW] for i in range(SAMPLES)])
    x_train = torch.from_numpy(windows).t().unsqueeze(-1)
    y_train = torch.from_numpy(series[WINDOW:])
    model = Baseline()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(30):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x_train), y_train)
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
