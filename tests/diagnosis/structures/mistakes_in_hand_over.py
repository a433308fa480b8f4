"""Lightning modules whose state is not that of the rows they read: healthy ones with the smallest change."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from echo_torch import diagnosis
from structures import word_language_model
from structures.word_language_model import COLUMNS, SIZE, make_loader, repackage_hidden, text

ITEMS, ROWS = 20, 3


def batches_of_sessions():
    """Clicks (rows, 1), rows that begin a session, place (rows, 1) and number of the session, one click at a time."""
    draw = torch.Generator().manual_seed(1)
    place, session, batches = torch.zeros(ROWS, dtype=torch.long), torch.arange(ROWS), []
    lengths = torch.tensor([4, 6, 5])
    for _ in range(18):
        clicks = torch.randint(ITEMS, (ROWS, 1), generator=draw)
        batches.append((clicks, place == 0, place[:, None].clone(), session.clone()))
        place += 1
        has_ended = place == lengths
        place[has_ended], session[has_ended] = 0, session[has_ended] + ROWS
    return batches


def unrelated_sentences():
    """Words (rows, steps), starts, place and number: shuffled sentences, each of which is a sequence of its own."""
    draw = torch.Generator().manual_seed(2)
    sentences = torch.randint(ITEMS, (30, 5), generator=draw)
    place = torch.arange(5).expand(ROWS, 5)
    return [
        (sentences[chosen], torch.ones(ROWS, dtype=torch.bool), place, chosen)
        for chosen in torch.randperm(30, generator=draw).split(ROWS)
    ]


class Sessions(pl.LightningModule):
    """Healthy: the rows that begin a session are reset before they are read."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ITEMS, SIZE)
        self.gru = nn.GRU(SIZE, SIZE, batch_first=True)
        self.output = nn.Linear(SIZE, ITEMS)
        self.hidden = torch.zeros(1, ROWS, SIZE)

    def training_step(self, batch, batch_idx):
        clicks, begins, *_ = batch
        hidden = self.hidden.masked_fill(begins.view(1, -1, 1), 0)
        features, hidden = self.gru(self.embedding(clicks), hidden)
        self.hidden = hidden.detach()
        return F.cross_entropy(self.output(features).flatten(0, 1), clicks.flatten())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class NoReset(Sessions):
    def training_step(self, batch, batch_idx):
        clicks, *_ = batch  # which rows begin a session is not looked at
        features, hidden = self.gru(self.embedding(clicks), self.hidden)
        self.hidden = hidden.detach()
        return F.cross_entropy(self.output(features).flatten(0, 1), clicks.flatten())


class ResetOneBatchLate(Sessions):
    def training_step(self, batch, batch_idx):
        clicks, begins, *_ = batch
        features, hidden = self.gru(self.embedding(clicks), self.hidden)
        self.hidden = hidden.detach().masked_fill(begins.view(1, -1, 1), 0)
        return F.cross_entropy(self.output(features).flatten(0, 1), clicks.flatten())


class SilentEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(SIZE, SIZE, batch_first=True)
        self._states = None

    def forward(self, vectors):
        features, states = self.rnn(vectors, self._states)
        self._states = tuple(state.detach() for state in states)
        return features


class FreshEncoder(SilentEncoder):
    def forward(self, vectors):
        features, _ = self.rnn(vectors)
        return features


class Tagger(pl.LightningModule):
    """Healthy with an encoder that keeps nothing: the sentences are unrelated."""

    def __init__(self, encoder):
        super().__init__()
        self.embedding = nn.Embedding(ITEMS, SIZE)
        self.encoder = encoder
        self.output = nn.Linear(SIZE, ITEMS)

    def training_step(self, batch, batch_idx):
        words, *_ = batch
        scores = self.output(self.encoder(self.embedding(words)))
        return F.cross_entropy(scores.flatten(0, 1), words.flatten())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class CutToTheBatch(Sessions):
    def training_step(self, batch, batch_idx):
        self.hidden = self.hidden[:, : len(batch[0])]
        return super().training_step(batch, batch_idx)


class OneStateForAll(word_language_model.Training):
    def validation_step(self, batch, batch_idx):
        words, following, _ = batch
        scores, hidden = self.model(words, self.hidden)
        self.hidden = repackage_hidden(hidden)
        self.log("validation_loss", F.nll_loss(scores, following))


class NeverFresh(word_language_model.Training):
    def on_train_epoch_start(self):
        if self.hidden is None:
            self.hidden = self.model.init_hidden(COLUMNS)


class FromTheSanityCheck(NeverFresh):
    def validation_step(self, batch, batch_idx):
        hidden = self.model.init_hidden(COLUMNS) if self.hidden is None else self.hidden
        _, self.hidden = self.model(batch[0], hidden)


# --- what is trained, on what, and watched how: (module, batches, batches of the validation, audit) --------------


def loader_of(batches):
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def places_of(batch):
    """Where the rows stand; what the module resets is not told, for the audit sees it."""
    return diagnosis.Stamps(step=batch[2], sequence=batch[3])


def on_batches(module, batches):
    return module, loader_of(batches), None, diagnosis.StateAudit(stamps=places_of)


def on_sessions(module):
    return on_batches(module, batches_of_sessions())


def on_sentences(encoder):
    return on_batches(Tagger(encoder), unrelated_sentences())


def on_full_batches(module):
    return on_batches(module, batches_of_sessions()[:4])


def on_a_short_last_batch(module):
    """Its rows are of sessions that go on."""
    *batches, last = batches_of_sessions()[:4]
    return on_batches(module, [*batches, tuple(field[:2] for field in last)])


def on_text(module, *, columns=COLUMNS):
    """Validated on another text of so many columns; 0: not validated."""
    validation_loader = make_loader(text(60), columns) if columns else None
    audit = diagnosis.StateAudit(stamps=word_language_model.stamps_of, state=lambda module: module.hidden)
    return module, make_loader(text()), validation_loader, audit


def on_text_of_three_columns(module):
    """As the healthy module validates."""
    return on_text(module, columns=3)


def on_text_alone(module):
    return on_text(module, columns=0)
