"""A translator: a packed bidirectional encoder, a bridge, and a decoder that is stepped; sentences are independent."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

from echo_torch import diagnosis

WORDS, PADDING, START, SIZE = 12, 0, 1, 10


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=PADDING)
        self.drop = nn.Dropout(0.1)
        self.encoder = nn.GRU(SIZE, SIZE, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * SIZE, SIZE)
        self.decoder = nn.GRUCell(SIZE, SIZE)
        self.output = nn.Linear(SIZE, WORDS)

    def encode(self, source, lengths):
        vectors = self.drop(self.embedding(source))
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        _, last = self.encoder(packed)
        return self.bridge(torch.cat([last[0], last[1]], dim=1)).tanh()

    def decode(self, words, hidden):
        scores = []
        for word in words.unbind(dim=1):
            hidden = self.decoder(self.drop(self.embedding(word)), hidden)
            scores.append(self.output(hidden))
        return torch.stack(scores, dim=1), hidden

    def forward(self, source, lengths, target):
        begin = torch.full_like(target[:, :1], START)
        scores, _ = self.decode(torch.cat([begin, target[:, :-1]], dim=1), self.encode(source, lengths))
        return scores


def sentences(number=65):
    draw = torch.Generator().manual_seed(4)
    lengths = torch.randint(2, 7, (number,), generator=draw).tolist()
    return [(index, torch.randint(2, WORDS, (length,), generator=draw)) for index, length in enumerate(lengths)]


def collate(items):
    indices, sources = zip(*items, strict=True)
    return {
        "source": pad_sequence(sources, batch_first=True, padding_value=PADDING),
        "target": pad_sequence([source.flip(0) for source in sources], batch_first=True, padding_value=PADDING),
        "lengths": torch.tensor([len(source) for source in sources]),
        "index": torch.tensor(indices),
    }


def make_loader(*, shuffle=True):
    return DataLoader(sentences(), batch_size=5, shuffle=shuffle, collate_fn=collate)


def stamps_of(batch):
    """The columns of the source, and after them those of the target, in which nothing of the source is read."""
    column, length = torch.arange(2 * batch["source"].shape[1]), batch["lengths"][:, None]
    step = torch.where(column < 2 * length, column, -1)
    is_source = column < length
    return diagnosis.Stamps(
        step=step,
        sequence=batch["index"],
        starts=torch.ones(len(step), dtype=torch.bool),
        is_read=is_source,
        is_asked=(step >= 0) & ~is_source,
        answers=torch.where((step >= 0) & ~is_source, 2 * length - 1 - column, -1),  # the target is the source reversed
    )


def make_model():
    torch.manual_seed(0)
    return Translator()


def loss_of(model, batch):
    scores = model(batch["source"], batch["lengths"], batch["target"])
    return F.cross_entropy(scores.flatten(0, 1), batch["target"].flatten(), ignore_index=PADDING)


def train(model):
    """The loop without Lightning."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        for batch in make_loader():
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make_model()

    def training_step(self, batch, batch_idx):
        return loss_of(self.model, batch)

    def validation_step(self, batch, batch_idx):
        loss_of(self.model, batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def make_training():
    return Training(), make_loader(), make_loader(shuffle=False)


def follow():
    return diagnosis.reach(make_loader(), stamps=stamps_of)


def watch():
    return diagnosis.StateAudit("count", stamps=stamps_of)


def decode(model, words, hidden):
    """The part that has a state: it goes from step to step."""
    return model.decode(words, hidden)


def shake(model):
    return diagnosis.probe(model, WORDS, call=decode, state=lambda lanes: torch.zeros(lanes, SIZE))
