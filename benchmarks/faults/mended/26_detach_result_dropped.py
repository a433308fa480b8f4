"""A decoder's state sits in a small class of its own, which is told to detach after each update.
Mended: the class keeps what detach() returns, so that no update reaches into the graph of the one
before.
"""

import torch
from torch import nn

WORDS = 40


class DecoderState:
    def __init__(self, fields):
        self.fields = fields

    def detach(self):
        self.fields = tuple(field.detach() for field in self.fields)


class Decoder(nn.Module):
    def __init__(self, size=12):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, size)
        self.rnn = nn.LSTM(size, size)
        self.output = nn.Linear(size, WORDS)

    def forward(self, words, state):
        fields = None if state is None else state.fields
        features, fields = self.rnn(self.embedding(words), fields)
        return self.output(features), DecoderState(fields)


def main():
    torch.manual_seed(26)
    text = torch.randint(0, WORDS, (300, 4))
    decoder = Decoder()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
    state = None
    for words in text.split(10):
        optimizer.zero_grad()
        scores, state = decoder(words, state)
        loss = nn.functional.cross_entropy(scores[:-1].flatten(0, 1), words[1:].flatten())
        loss.backward()
        optimizer.step()
        state.detach()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
