"""A classifier of whole texts: packed, bidirectional, one answer for a text, no state beyond it."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

from echo_torch import diagnosis

WORDS, SIZE = 20, 6


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.rnn = nn.LSTM(SIZE, SIZE, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.output = nn.Linear(2 * SIZE, 2)

    def forward(self, words, lengths):
        packed = pack_padded_sequence(self.embedding(words), lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.rnn(packed)
        return self.output(torch.cat([hidden[-2], hidden[-1]], dim=1))


def texts(number=60):
    draw = torch.Generator().manual_seed(9)
    lengths = torch.randint(4, 10, (number,), generator=draw).tolist()
    words = [torch.randint(1, WORDS, (length,), generator=draw) for length in lengths]
    return [(index, text, int((text < 10).float().mean() > 0.5)) for index, text in enumerate(words)]


def collate(items):
    indices, words, labels = zip(*items, strict=True)
    lengths = torch.tensor([len(text) for text in words])
    return pad_sequence(words, batch_first=True), lengths, torch.tensor(labels), torch.tensor(indices)


def make_loader(*, shuffle=True):
    return DataLoader(texts(), batch_size=4, shuffle=shuffle, collate_fn=collate)


def places_of(batch):
    """Where the rows stand, -1 in the padding; resets are not told."""
    words, lengths, _, index = batch
    column = torch.arange(words.shape[1])
    return diagnosis.Stamps(step=torch.where(column < lengths[:, None], column, -1), sequence=index)


def stamps_of(batch):
    return places_of(batch)._replace(starts=torch.ones(len(batch[0]), dtype=torch.bool))


def make_model():
    torch.manual_seed(0)
    return Classifier()


def train(model):
    """The loop without Lightning."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(6):
        for words, lengths, labels, _ in make_loader():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(words, lengths), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make_model()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0], batch[1]), batch[2])

    def validation_step(self, batch, batch_idx):
        self.model(batch[0], batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def make_training():
    return Training(), make_loader(), make_loader(shuffle=False)


def follow():
    return diagnosis.reach(make_loader(), stamps=stamps_of)


def watch():
    return diagnosis.StateAudit("count", stamps=places_of)


def read_whole(model, words, state):
    """The classifier's answers to texts without padding; it takes no state and leaves none."""
    return model(words, torch.full((len(words),), words.shape[1]))


def shake(model):
    return diagnosis.probe(model, WORDS, call=read_whole)
