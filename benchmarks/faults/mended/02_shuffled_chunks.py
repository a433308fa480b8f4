"""A text is cut into chunks of twelve characters and a recurrent language model keeps its state
from batch to batch so that it can remember more than one chunk. Mended: nothing is shuffled; the
chunks are laid out in four rows, and a batch holds one chunk of each, so that each row goes on
where its state ended.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CHARACTERS = 48


class TextChunks(Dataset):
    def __init__(self, text, length=12):
        self.text = text
        self.length = length

    def __len__(self):
        return (len(self.text) - 1) // self.length

    def __getitem__(self, index):
        begin = index * self.length
        piece = self.text[begin : begin + self.length + 1]
        return piece[:-1], piece[1:]


class CharacterModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, 12)
        self.gru = nn.GRU(12, 24, batch_first=True)
        self.output = nn.Linear(24, CHARACTERS)
        self.hidden = None

    def forward(self, characters):
        features, hidden = self.gru(self.embedding(characters), self.hidden)
        self.hidden = hidden.detach()
        return self.output(features)


def main():
    torch.manual_seed(2)
    text = torch.randint(0, CHARACTERS, (1441,))
    chunks = TextChunks(text)
    order = torch.arange(len(chunks)).view(4, -1).t().flatten().tolist()
    loader = DataLoader(chunks, batch_size=4, sampler=order)
    model = CharacterModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for characters, following in loader:
        optimizer.zero_grad()
        scores = model(characters)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten())
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
