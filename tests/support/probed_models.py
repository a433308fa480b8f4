"""Small models, healthy ones, that the tests of the probe change; and two mistakes between two chunks."""

import torch
from torch import nn


class LanguageModel(nn.Module):
    """Words, an LSTM that makes its own state where it gets none, and whatever a test changes."""

    def __init__(self, core=nn.LSTM):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)
        self.core = core(6, 6, batch_first=True)

    def forward(self, symbols, state=None):
        features, state = self.core(self.words(symbols), state)
        return self.head(features), state


class Keeping(nn.Module):
    """A state on the module."""

    def __init__(self, hidden=None):
        super().__init__()
        self.core, self.hidden = nn.GRU(3, 6, batch_first=True), hidden

    def forward(self, inputs):
        outputs, hidden = self.core(inputs, self.hidden)
        self.hidden = hidden.detach()
        return outputs


class ManyToOne(LanguageModel):
    """The last step alone."""

    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits[:, -1], state


class Pooled(LanguageModel):
    """The mean over the steps."""

    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits.mean(dim=1), state


class Regularized(LanguageModel):
    """Dropout, batch norm, layer norm, and the head tied to the words."""

    def __init__(self):
        super().__init__()
        self.dropout, self.batch_norm, self.layer_norm = nn.Dropout(0.5), nn.BatchNorm1d(6), nn.LayerNorm(6)
        self.head.weight = self.words.weight

    def forward(self, symbols, state=None):
        features, state = self.core(self.dropout(self.words(symbols)), state)
        return self.head(self.batch_norm(self.layer_norm(features).transpose(1, 2)).transpose(1, 2)), state


def of_zeros(state, starts):
    """Drops the state."""
    return tuple(torch.zeros_like(part) for part in state)


def raising(state, starts):
    """Raises."""
    raise KeyError("a mistake of one's own")
