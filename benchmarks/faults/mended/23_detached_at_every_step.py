"""A GRU cell is stepped by hand over chunks of symbols and has to repeat what it saw three steps
ago. Mended: the hidden state is detached once between two chunks and not before every step, so
that the gradient goes back to the beginning of the chunk.
"""

import torch
from torch import nn

SYMBOLS = 30
LAG = 3


class Echo(nn.Module):
    def __init__(self, size=16):
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(SYMBOLS, size)
        self.cell = nn.GRUCell(size, size)
        self.output = nn.Linear(size, SYMBOLS)

    def forward(self, symbols, hidden):
        scores = []
        for step in range(symbols.shape[1]):
            hidden = self.cell(self.embedding(symbols[:, step]), hidden)
            scores.append(self.output(hidden))
        return torch.stack(scores, dim=1), hidden


def main():
    torch.manual_seed(23)
    rows = torch.randint(0, SYMBOLS, (4, 300))
    model = Echo()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    hidden = torch.zeros(4, model.size)
    for chunk in rows.split(10, dim=1):
        optimizer.zero_grad()
        scores, hidden = model(chunk, hidden.detach())
        loss = nn.functional.cross_entropy(scores[:, LAG:].flatten(0, 1), chunk[:, :-LAG].flatten())
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
