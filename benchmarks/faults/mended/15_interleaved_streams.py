"""Several log files are read at once: chunks of three open files are interleaved and every three
chunks become the rows of a batch for a model that keeps its state. Mended: a file stays in its row
of the batch; when it ends the next file takes that row, and the state of the row is emptied first.
"""

import torch
from torch import nn

TOKENS = 80
LANES = 3
LENGTH = 5


def interleave(streams):
    """Chunks of the open streams in turn; a stream that has ended makes room for the next."""
    queues = [[(n == 0, chunk) for n, chunk in enumerate(s.split(LENGTH))] for s in streams]
    active = queues[:LANES]
    waiting = queues[LANES:]
    while active.count([]) <= len(waiting):
        for queue in list(active):
            if not queue:
                queue.extend(waiting.pop(0))
            yield queue.pop(0)


def batches(streams):
    rows = []
    for chunk in interleave(streams):
        rows.append(chunk)
        if len(rows) == LANES:
            begins, chunks = zip(*rows)
            yield torch.stack(chunks), torch.tensor(begins)
            rows = []


class LogModel(nn.Module):
    def __init__(self, size=16):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, size)
        self.gru = nn.GRU(size, size, batch_first=True)
        self.output = nn.Linear(size, TOKENS)
        self.hidden = None

    def forward(self, tokens, begins):
        if self.hidden is not None:
            self.hidden = self.hidden.masked_fill(begins.view(1, -1, 1), 0.0)
        features, hidden = self.gru(self.embedding(tokens), self.hidden)
        self.hidden = hidden.detach()
        return self.output(features)


def main():
    torch.manual_seed(15)
    lengths = [60, 130, 95, 110, 75, 90]
    streams = [torch.randint(0, TOKENS, (length,)) for length in lengths]
    model = LogModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for tokens, begins in batches(streams):
        optimizer.zero_grad()
        scores = model(tokens, begins)
        loss = nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
