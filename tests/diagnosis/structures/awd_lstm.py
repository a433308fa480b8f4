"""A language model with chunks of random length: layers of different widths, dropped weights, a list of states."""

import itertools

import pytorch_lightning as pl
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from echo_torch import diagnosis

WORDS, COLUMNS, CHUNK, SIZES = 20, 4, 8, (6, 9, 6)


class DroppedLSTM(nn.Module):
    """An LSTM, some of whose recurrent weights are dropped for a whole chunk."""

    def __init__(self, input_size, hidden_size, dropout=0.3):
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size)
        self.dropout = dropout

    def forward(self, features, hidden):
        weight = F.dropout(self.lstm.weight_hh_l0, self.dropout, self.training)
        return functional_call(self.lstm, {"weight_hh_l0": weight}, (features, hidden))


def locked_dropout(features, share, training):
    """Drop the same features at every step of a chunk."""
    if not training:
        return features
    mask = torch.empty_like(features[:1]).bernoulli_(1 - share) / (1 - share)
    return features * mask


class AwdModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(WORDS, SIZES[0])
        self.rnns = nn.ModuleList(DroppedLSTM(*pair) for pair in itertools.pairwise(SIZES))
        self.decoder = nn.Linear(SIZES[-1], WORDS)
        self.decoder.weight = self.encoder.weight

    def forward(self, words, hidden, return_raw=False):
        features, raw, left = locked_dropout(self.encoder(words), 0.2, self.training), [], []
        for rnn, part in zip(self.rnns, hidden, strict=True):
            features, part = rnn(features, part)
            raw.append(features)
            left.append(part)
            features = locked_dropout(features, 0.2, self.training)
        scores = self.decoder(features)
        return (scores, left, raw) if return_raw else (scores, left)

    def init_hidden(self, columns):
        weight = self.decoder.weight
        return [tuple(weight.new_zeros(1, columns, size) for _ in range(2)) for size in SIZES[1:]]


class RandomChunks(IterableDataset):
    """Chunks (steps, columns) whose length is drawn anew, the words that follow, and where they stand."""

    def __init__(self, tokens):
        length = len(tokens) // COLUMNS
        self.source = tokens[: length * COLUMNS].view(COLUMNS, length).t()
        self.place = torch.arange(length * COLUMNS).view(COLUMNS, length).t()
        self.draw = torch.Generator().manual_seed(3)

    def random_length(self):
        half = torch.rand((), generator=self.draw) < 0.1
        mean = CHUNK / 2 if half else CHUNK
        return max(2, int(mean + 2 * torch.randn((), generator=self.draw)))

    def __iter__(self):
        begin = 0
        while begin < len(self.source) - 1:
            end = min(begin + self.random_length(), len(self.source) - 1)
            yield self.source[begin:end], self.source[begin + 1 : end + 1], self.place[begin:end]
            begin = end


def make_loader(tokens):
    return DataLoader(RandomChunks(tokens), batch_size=None)


def text(length=320):
    steps = torch.randint(2, (length,), generator=torch.Generator().manual_seed(2))
    return (3 * torch.arange(length) + steps.cumsum(0)) % WORDS


def stamps_of(batch):
    return diagnosis.Stamps(step=batch[2].t())


def detached(hidden):
    return [tuple(field.detach() for field in part) for part in hidden]


def make_model():
    torch.manual_seed(0)
    return AwdModel()


def loss_of(scores, following, raw):
    """Cross-entropy, and how much the last layer's features change from step to step."""
    smooth = (raw[-1][1:] - raw[-1][:-1]).pow(2).mean() if len(raw[-1]) > 1 else 0.0
    return F.cross_entropy(scores.flatten(0, 1), following.flatten()) + 0.1 * smooth


def train(model):
    """The loop without Lightning: the learning rate goes with the length of the chunk."""
    rate = 0.02
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    loader, losses = make_loader(text()), []
    for _ in range(8):
        hidden = model.init_hidden(COLUMNS)
        for words, following, _ in loader:
            optimizer.param_groups[0]["lr"] = rate * len(words) / CHUNK
            hidden = detached(hidden)
            optimizer.zero_grad()
            scores, hidden, raw = model(words, hidden, return_raw=True)
            loss = loss_of(scores, following, raw)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


class Training(pl.LightningModule):
    """The state lies on the module and is set anew in the first step of an epoch."""

    def __init__(self):
        super().__init__()
        self.model = make_model()
        self.hidden = None

    def training_step(self, batch, batch_idx):
        words, following, _ = batch
        hidden = self.model.init_hidden(words.shape[1]) if batch_idx == 0 else detached(self.hidden)
        scores, self.hidden, raw = self.model(words, hidden, return_raw=True)
        return loss_of(scores, following, raw)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def make_training():
    return Training(), make_loader(text()), None


def follow():
    return diagnosis.reach_of(make_loader, length=320, time_major=True)


def watch():
    return diagnosis.StateAudit("count", stamps=stamps_of, state=lambda module: module.hidden)


def shake(model):
    return diagnosis.probe(model, inputs=lambda lanes, steps: torch.randint(WORDS, (steps, lanes)))
