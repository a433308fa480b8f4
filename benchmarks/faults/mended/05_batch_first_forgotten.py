"""A word model learns to continue short jokes: windows of four words, a two-layer LSTM, the state
handed on inside an epoch. Mended: nn.LSTM is told that the batch comes first, and the state has a
row for each row of the batch. The windows do not overlap any more: the words are laid out in seven
rows, and a batch holds the next window of each, so that each row goes on where its state ended.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

WORDS = 60
SEQUENCE_LENGTH = 4


class WordWindows(Dataset):
    def __init__(self, words):
        self.words = words

    def __len__(self):
        return len(self.words) - SEQUENCE_LENGTH

    def __getitem__(self, index):
        return (
            self.words[index : index + SEQUENCE_LENGTH],
            self.words[index + 1 : index + SEQUENCE_LENGTH + 1],
        )


class WordModel(nn.Module):
    def __init__(self, size=16, layers=2):
        super().__init__()
        self.size = size
        self.layers = layers
        self.embedding = nn.Embedding(WORDS, size)
        self.lstm = nn.LSTM(size, size, num_layers=layers, batch_first=True)
        self.linear = nn.Linear(size, WORDS)

    def forward(self, words, state):
        output, state = self.lstm(self.embedding(words), state)
        return self.linear(output), state

    def first_state(self, rows):
        return (
            torch.zeros(self.layers, rows, self.size),
            torch.zeros(self.layers, rows, self.size),
        )


def main():
    torch.manual_seed(5)
    jokes = torch.randint(0, WORDS, (214,))
    places = torch.arange(len(jokes) - SEQUENCE_LENGTH).view(7, -1)
    order = places[:, : -SEQUENCE_LENGTH + 1 : SEQUENCE_LENGTH].t().flatten().tolist()
    loader = DataLoader(WordWindows(jokes), batch_size=7, sampler=order)
    model = WordModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    hidden, cell = model.first_state(7)
    for words, following in loader:
        optimizer.zero_grad()
        scores, (hidden, cell) = model(words, (hidden, cell))
        loss = nn.functional.cross_entropy(scores.transpose(1, 2), following)
        hidden = hidden.detach()
        cell = cell.detach()
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
