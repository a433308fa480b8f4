"""A shop recommends the next item: sessions of clicks run in parallel in the rows of a batch, and
when one ends the next session takes its row. Mended: the mask of the rows that begin a new session
is applied before the batch in which they begin, so that its first click meets an empty state, and
its second click the state of the first.
"""

import torch
from torch import nn

ITEMS = 300
LANES = 4


def session_batches(sessions):
    """Yield (clicked, next clicked, rows that begin a session), one click per row."""
    current = list(range(LANES))
    position = [0] * LANES
    waiting = LANES
    begins = [True] * LANES
    while True:
        clicked = [sessions[s][p] for s, p in zip(current, position)]
        following = [sessions[s][p + 1] for s, p in zip(current, position)]
        yield torch.stack(clicked).view(-1, 1), torch.stack(following), torch.tensor(begins)
        begins = [False] * LANES
        for lane in range(LANES):
            position[lane] += 1
            if position[lane] + 1 >= len(sessions[current[lane]]):
                if waiting >= len(sessions):
                    return
                current[lane] = waiting
                position[lane] = 0
                begins[lane] = True
                waiting += 1


class NextItem(nn.Module):
    def __init__(self, size=16):
        super().__init__()
        self.embedding = nn.Embedding(ITEMS, size)
        self.gru = nn.GRU(size, size, batch_first=True)
        self.output = nn.Linear(size, ITEMS)

    def forward(self, clicked, hidden):
        features, hidden = self.gru(self.embedding(clicked), hidden)
        return self.output(features[:, -1]), hidden


def main():
    torch.manual_seed(12)
    lengths = torch.randint(5, 13, (22,)).tolist()
    sessions = [torch.randint(0, ITEMS, (length,)) for length in lengths]
    model = NextItem()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    hidden = torch.zeros(1, LANES, 16)
    for clicked, following, begins in session_batches(sessions):
        hidden = hidden.masked_fill(begins.view(1, -1, 1), 0.0)
        optimizer.zero_grad()
        scores, hidden = model(clicked, hidden)
        loss = nn.functional.cross_entropy(scores, following)
        loss.backward()
        optimizer.step()
        hidden = hidden.detach()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
