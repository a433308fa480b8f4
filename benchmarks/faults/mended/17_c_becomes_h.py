"""Four streams of text are read in chunks of uneven length: the rows are sorted by length for
packing, and output and state are put back in the order of the batch afterwards. Mended: c is put
back in the place of c, so that the next chunk begins with both fields of the state.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

WORDS = 60
STREAMS = 4


class PackedModel(nn.Module):
    def __init__(self, size=12):
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(WORDS, size, padding_idx=0)
        self.rnn = nn.LSTM(size, size, batch_first=True)
        self.output = nn.Linear(size, WORDS)

    def first_state(self, rows):
        return torch.zeros(1, rows, self.size), torch.zeros(1, rows, self.size)

    def forward(self, words, lengths, state):
        order = lengths.argsort(descending=True)
        back = order.argsort()
        h, c = state
        vectors = self.embedding(words[order])
        packed = pack_padded_sequence(vectors, lengths[order], batch_first=True)
        packed, (h, c) = self.rnn(packed, (h[:, order], c[:, order]))
        features, _ = pad_packed_sequence(packed, batch_first=True)
        h, c = h[:, back], c[:, back]
        return self.output(features[back]), (h, c)


def uneven_chunks(streams, count):
    position = [0] * len(streams)
    for _ in range(count):
        lengths = torch.randint(4, 9, (len(streams),))
        words = torch.zeros(len(streams), int(lengths.max()), dtype=torch.long)
        for row, length in enumerate(lengths.tolist()):
            words[row, :length] = streams[row][position[row] : position[row] + length]
            position[row] += length
        yield words, lengths


def main():
    torch.manual_seed(17)
    streams = [torch.randint(1, WORDS, (250,)) for _ in range(STREAMS)]
    model = PackedModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    state = model.first_state(STREAMS)
    for words, lengths in uneven_chunks(streams, 30):
        optimizer.zero_grad()
        scores, state = model(words, lengths, state)
        loss = nn.functional.cross_entropy(
            scores[:, :-1].flatten(0, 1), words[:, 1:].flatten(), ignore_index=0
        )
        loss.backward()
        optimizer.step()
        state = tuple(part.detach() for part in state)
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
