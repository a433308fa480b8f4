"""Truncated backpropagation by hand: whole texts are split in time inside one step, the state fresh with each batch."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from echo_torch import diagnosis

WORDS, LENGTH, SPLIT, SIZE = 15, 24, 6, 8


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE)
        self.norm = nn.LayerNorm(SIZE)
        self.rnn = nn.LSTM(SIZE, SIZE, batch_first=True)
        self.output = nn.Linear(SIZE, WORDS)

    def forward(self, words, state=None):
        features, state = self.rnn(self.norm(self.embedding(words)), state)
        return self.output(features), state


class Texts(Dataset):
    """Texts of one length; each item says which text it is."""

    def __init__(self, number=24):
        draw = torch.Generator().manual_seed(6)
        begins = torch.randint(WORDS, (number, 1), generator=draw)
        paces = torch.randint(1, 4, (number, 1), generator=draw)
        self.texts = (begins + paces * torch.arange(LENGTH)) % WORDS

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return {"text": self.texts[index], "place": torch.arange(LENGTH), "index": index}


def make_loader(*, shuffle=True):
    return DataLoader(Texts(), batch_size=4, shuffle=shuffle)


def stamps_of(batch):
    return diagnosis.Stamps(step=batch["place"], sequence=batch["index"], starts=torch.ones(len(batch["text"])) > 0)


def make_model():
    torch.manual_seed(0)
    return LanguageModel()


def loss_of(scores, words):
    return F.cross_entropy(scores[:, :-1].flatten(0, 1), words[:, 1:].flatten())


def train(model):
    """The loop without Lightning."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        for batch in make_loader():
            state = None
            for words in batch["text"].split(SPLIT, dim=1):
                scores, state = model(words, state)
                loss = loss_of(scores, words)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                state = tuple(field.detach() for field in state)
                losses.append(loss.item())
    return losses


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.model = make_model()

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        state = None
        for words in batch["text"].split(SPLIT, dim=1):
            scores, state = self.model(words, state)
            optimizer.zero_grad()
            self.manual_backward(loss_of(scores, words))
            optimizer.step()
            state = tuple(field.detach() for field in state)

    def validation_step(self, batch, batch_idx):
        self.model(batch["text"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def make_training():
    return Training(), make_loader(), make_loader(shuffle=False)


def follow():
    return diagnosis.reach(make_loader(), stamps=stamps_of)


def watch():
    """The resets inside the step are not told: the audit sees them itself."""
    return diagnosis.StateAudit("count", stamps=lambda batch: diagnosis.Stamps(batch["place"], batch["index"]))


def shake(model):
    return diagnosis.probe(model, WORDS)
