"""A damped wave is forecast one value ahead by a network that keeps its state between batches;
each sample is a single value. Mended: the series is laid out in 25 rows of neighbouring values,
and a batch holds one value of each, so that each row goes on where its state ended.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE = 25


class NextValue(Dataset):
    """Pairs of one value and the value that follows it."""

    def __init__(self, series):
        self.series = series

    def __len__(self):
        return len(self.series) - 1

    def __getitem__(self, index):
        return self.series[index : index + 1].unsqueeze(-1), self.series[index + 1]


class Forecaster(nn.Module):
    def __init__(self, hidden_size=16):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)
        self.state = None

    def forward(self, values):
        output, state = self.lstm(values, self.state)
        self.state = tuple(part.detach() for part in state)
        return self.head(output[:, -1]).squeeze(-1)


def make_series(length):
    time = torch.linspace(0.0, 80.0, length)
    return torch.exp(-0.01 * time) * torch.cos(2.1 * time) + 0.02 * torch.randn(length)


def main():
    torch.manual_seed(1)
    pairs = NextValue(make_series(901))
    order = torch.arange(len(pairs)).view(BATCH_SIZE, -1).t().flatten().tolist()
    loader = DataLoader(pairs, batch_size=BATCH_SIZE, sampler=order)
    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for values, target in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(values), target)
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
