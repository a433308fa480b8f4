"""A tagger reads shuffled, unrelated sentences through a pretrained-style encoder that it took
from a library. Mended: the encoder keeps no state between its calls, so that every sentence begins
with an empty one.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WORDS = 50
TAGS = 4


class ContextEncoder(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.forward_layer = nn.LSTM(size, size, batch_first=True)

    def forward(self, vectors):
        output, _ = self.forward_layer(vectors)
        return output


class Tagger(nn.Module):
    def __init__(self, size=12):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, size)
        self.encoder = ContextEncoder(size)
        self.output = nn.Linear(size, TAGS)

    def forward(self, sentences):
        return self.output(self.encoder(self.embedding(sentences)))


def main():
    torch.manual_seed(10)
    sentences = torch.randint(0, WORDS, (60, 8))
    tags = (sentences + sentences.roll(1, dims=1)) % TAGS
    loader = DataLoader(TensorDataset(sentences, tags), batch_size=6, shuffle=True)
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(3):
        for words, tag in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(words).flatten(0, 1), tag.flatten())
            loss.backward()
            optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
