"""A word language model in the classic layout: time-major columns, the state detached and fresh at each epoch."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from echo_torch import diagnosis

WORDS, COLUMNS, CHUNK, SIZE = 20, 4, 7, 8


class WordModel(nn.Module):
    def __init__(self, num_layers=2):
        super().__init__()
        self.num_layers = num_layers
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(WORDS, SIZE)
        self.rnn = nn.LSTM(SIZE, SIZE, num_layers, dropout=0.2)
        self.decoder = nn.Linear(SIZE, WORDS)
        self.decoder.weight = self.encoder.weight

    def forward(self, words, hidden):
        features, hidden = self.rnn(self.drop(self.encoder(words)), hidden)
        scores = self.decoder(self.drop(features)).view(-1, WORDS)
        return F.log_softmax(scores, dim=1), hidden

    def init_hidden(self, columns):
        weight = self.decoder.weight
        return tuple(weight.new_zeros(self.num_layers, columns, SIZE) for _ in range(2))


def in_columns(tokens, columns):
    """(length,) -> (length // columns, columns): the text in columns that are read side by side."""
    length = len(tokens) // columns
    return tokens[: length * columns].view(columns, length).t().contiguous()


def repackage_hidden(hidden):
    """Detach a state of any nesting."""
    if isinstance(hidden, torch.Tensor):
        return hidden.detach()
    return tuple(repackage_hidden(part) for part in hidden)


class Chunks(Dataset):
    """Item i: words (steps, columns), the words that follow (steps * columns,), and where they stand."""

    def __init__(self, tokens, columns=COLUMNS):
        self.source = in_columns(tokens, columns)
        self.place = in_columns(torch.arange(len(tokens)), columns)

    def __len__(self):
        return -(-(len(self.source) - 1) // CHUNK)

    def __getitem__(self, index):
        begin = index * CHUNK
        end = min(begin + CHUNK, len(self.source) - 1)
        return self.source[begin:end], self.source[begin + 1 : end + 1].reshape(-1), self.place[begin:end]


def make_loader(tokens, columns=COLUMNS):
    return DataLoader(Chunks(tokens, columns), batch_size=None)


def text(length=230):
    """A text that can be learned: mostly each word follows from the one before."""
    steps = torch.randint(2, (length,), generator=torch.Generator().manual_seed(1))
    return (3 * torch.arange(length) + steps.cumsum(0)) % WORDS


def stamps_of(batch):
    return diagnosis.Stamps(step=batch[2].t())


def make_model():
    torch.manual_seed(0)
    return WordModel()


def evaluate(model, loader, columns):
    model.eval()
    hidden, losses = model.init_hidden(columns), []
    with torch.no_grad():
        for words, following, _ in loader:
            scores, hidden = model(words, hidden)
            losses.append(F.nll_loss(scores, following).item())
    return sum(losses) / len(losses)


def train(model):
    """The loop without Lightning; returns the loss of each evaluation."""
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    losses = []
    for _ in range(8):
        model.train()
        hidden = model.init_hidden(COLUMNS)
        for words, following, _ in make_loader(text()):
            hidden = repackage_hidden(hidden)
            optimizer.zero_grad()
            scores, hidden = model(words, hidden)
            F.nll_loss(scores, following).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
        losses.append(evaluate(model, make_loader(text(120), 10), 10))
    return losses


class Training(pl.LightningModule):
    """The state is fresh at each epoch, and validation has one of its own."""

    def __init__(self):
        super().__init__()
        self.model = make_model()
        self.hidden = self.validation_hidden = None

    def on_train_epoch_start(self):
        self.hidden = self.model.init_hidden(COLUMNS)

    def on_validation_epoch_start(self):
        self.validation_hidden = self.model.init_hidden(3)

    def training_step(self, batch, batch_idx):
        words, following, _ = batch
        scores, hidden = self.model(words, self.hidden)
        self.hidden = repackage_hidden(hidden)
        return F.nll_loss(scores, following)

    def validation_step(self, batch, batch_idx):
        _, self.validation_hidden = self.model(batch[0], self.validation_hidden)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_training():
    return Training(), make_loader(text()), make_loader(text(100), 3)


def follow():
    return diagnosis.reach_of(make_loader, length=230, time_major=True)


def watch():
    return diagnosis.StateAudit("count", stamps=stamps_of, state=lambda module: module.hidden)


def shake(model):
    return diagnosis.probe(model, WORDS)
