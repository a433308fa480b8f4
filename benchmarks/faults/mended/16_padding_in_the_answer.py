"""Comments of different length are padded on the right and classified by an LSTM. Mended: the
padded batch is packed with the lengths of the comments, so that the layer reads no padding and the
answer is read from the state after the last word.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

WORDS = 70
PADDING = 0


class Comments(Dataset):
    def __init__(self, comments, labels):
        self.comments = comments
        self.labels = labels

    def __len__(self):
        return len(self.comments)

    def __getitem__(self, index):
        return self.comments[index], self.labels[index]


def collate(samples):
    comments, labels = zip(*samples)
    return nn.utils.rnn.pad_sequence(comments, padding_value=PADDING), torch.tensor(labels)


class Classifier(nn.Module):
    def __init__(self, size=12):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, size, padding_idx=PADDING)
        self.encoder = nn.LSTM(size, size)
        self.predictor = nn.Linear(size, 2)

    def forward(self, comments):
        lengths = (comments != PADDING).sum(dim=0)
        vectors = self.embedding(comments)
        packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, enforce_sorted=False)
        _, (hidden, _) = self.encoder(packed)
        return self.predictor(hidden[-1])


def main():
    torch.manual_seed(16)
    lengths = torch.randint(5, 21, (120,)).tolist()
    comments = [torch.randint(1, WORDS, (length,)) for length in lengths]
    labels = [int((comment < 20).float().mean() > 0.28) for comment in comments]
    loader = DataLoader(Comments(comments, labels), batch_size=4, shuffle=True, collate_fn=collate)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for comment, label in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(comment), label)
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
