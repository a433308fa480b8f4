"""Models as other people build them: where the state is, how it is nested, how inputs and outputs lie.

Each is written here in its own words; what it stands for is the structure of a well-known one.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

WORDS, WIDE, NARROW = 11, 6, 5  # rows of the embedding, features of the inner layers and of the last


class WeightDropped(nn.Module):
    """A layer whose recurrent weights are written anew as an attribute, with dropout, at every call."""

    def __init__(self, layer, share):
        super().__init__()
        self.layer, self.share = layer, share
        raw = layer._parameters.pop("weight_hh_l0")
        self.raw = nn.Parameter(raw.detach().clone())
        layer.weight_hh_l0 = raw.detach().clone()

    def forward(self, inputs, state):
        self.layer.weight_hh_l0 = F.dropout(self.raw, self.share, self.training)
        return self.layer(inputs, state)


class KeepingLanguageModel(nn.Module):
    """Like fastai's AWD_LSTM: the state stays on the module in `hidden`, one pair a layer, of different widths."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, NARROW, padding_idx=1)
        widths = [NARROW, WIDE, NARROW]
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(WeightDropped(nn.LSTM(*pair, batch_first=True), 0.5) for pair in pairs)
        self.head = nn.Linear(NARROW, WORDS)
        self.head.weight = self.words.weight
        self.reset()

    def reset(self):
        self.lanes, self.hidden = 1, self.first(1)

    def first(self, lanes):
        return [tuple(torch.zeros(1, lanes, width) for _ in range(2)) for width in (WIDE, NARROW)]

    def forward(self, symbols):
        if len(symbols) != self.lanes:
            self.lanes, self.hidden = len(symbols), self.first(len(symbols))
        features, kept = F.dropout(self.words(symbols), 0.3, self.training), []
        for layer, state in zip(self.layers, self.hidden, strict=True):
            features, state = layer(features, state)
            kept.append(state)
        self.hidden = self.keep(kept)
        dropped = F.dropout(features, 0.3, self.training)
        return self.head(dropped), features, dropped

    def keep(self, states):
        return [tuple(part.detach() for part in state) for state in states]


class TimeFirstLanguageModel(nn.Module):
    """Like PyTorch's word_language_model: steps first, outputs of all steps and lanes in one axis, `init_hidden`."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.dropout, self.words = nn.Dropout(0.4), nn.Embedding(WORDS, WIDE)
        self.core = kind(WIDE, WIDE, 2, dropout=0.4, **options)
        self.head = nn.Linear(WIDE * (2 if options else 1), WORDS)
        if not options:
            self.head.weight = self.words.weight

    def init_hidden(self, lanes):
        layers = 2 * (2 if self.core.bidirectional else 1)
        zeros = self.head.weight.new_zeros(layers, lanes, WIDE)
        return (zeros, zeros.clone()) if isinstance(self.core, nn.LSTM) else zeros

    def forward(self, symbols, hidden):
        features, hidden = self.core(self.dropout(self.words(symbols)), hidden)
        logits = self.head(self.dropout(features)).view(-1, WORDS)
        return F.log_softmax(logits, dim=1), hidden


class ListedLanguageModel(nn.Module):
    """Like Salesforce's awd-lstm-lm: steps first, a list of pairs of different widths, locked dropout."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, NARROW)
        self.layers = nn.ModuleList([nn.LSTM(NARROW, WIDE), nn.LSTM(WIDE, NARROW)])
        self.head = nn.Linear(NARROW, WORDS)

    def init_hidden(self, lanes):
        return [tuple(torch.zeros(1, lanes, width) for _ in range(2)) for width in (WIDE, NARROW)]

    def locked(self, features):
        if not self.training:
            return features
        return features * features.new_empty(1, *features.shape[1:]).bernoulli_(0.5) * 2

    def forward(self, symbols, hidden, return_all=False):
        features, kept = self.locked(self.words(symbols)), []
        for layer, state in zip(self.layers, hidden, strict=True):
            features, state = layer(features, state)
            features = self.locked(features)
            kept.append(state)
        logits = self.head(features.flatten(0, 1)).unflatten(0, symbols.shape)
        return (logits, kept, features) if return_all else (logits, kept)


class Policy(nn.Module):
    """Like torchrl's LSTMModule: all in one dict, states (lanes, layers, features), a mask of the steps that begin."""

    def __init__(self):
        super().__init__()
        self.core = nn.LSTM(3, WIDE, 2, batch_first=True)

    def forward(self, data):
        pair = (data["h"], data["c"]) if "h" in data else [torch.zeros(len(data["seen"]), 2, WIDE)] * 2
        pair = [part.masked_fill(data["is_init"][:, :1, None], 0).transpose(0, 1).contiguous() for part in pair]
        features, pair = self.core(data["seen"], tuple(pair))
        hidden, cell = (part.transpose(0, 1) for part in pair)
        return {"action": features.tanh(), "next_h": hidden, "next_c": cell}


def observations(lanes, steps):
    return {"seen": torch.randn(lanes, steps, 3), "is_init": torch.zeros(lanes, steps, dtype=torch.bool)}


class Detector(nn.Module):
    """Like the decoder of silero-vad: one step of LSTMCell a call, both fields stacked to (2, lanes, features)."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(WIDE, WIDE)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.ReLU(), nn.Conv1d(WIDE, 1, kernel_size=1), nn.Sigmoid())

    def forward(self, sound, state=torch.zeros(0)):  # noqa: B008  as it is there
        hidden, cell = self.cell(sound.squeeze(-1), tuple(state) if len(state) else None)
        return self.head(hidden.unsqueeze(-1)), torch.stack([hidden, cell])


def sounds(lanes, steps):
    return torch.randn(lanes, WIDE, 1)


class CellLoop(nn.Module):
    """A loop around LSTMCell over steps that stand second; `state` may be left out."""

    def __init__(self):
        super().__init__()
        self.cell, self.norm, self.head = nn.LSTMCell(3, WIDE), nn.BatchNorm1d(WIDE), nn.Linear(WIDE, 4)

    def forward(self, inputs, state=None):
        outputs = []
        for step in inputs.unbind(dim=1):
            state = self.cell(step, state)
            outputs.append(self.head(self.norm(state[0])))
        return torch.stack(outputs, dim=1), state


class ManyToOne(nn.Module):
    """As Keras has it: stateful, one answer for a chunk, the state kept until `reset_states`."""

    def __init__(self):
        super().__init__()
        self.core, self.head = nn.LSTM(3, WIDE, batch_first=True), nn.Linear(WIDE, 4)
        self.memory = None

    def reset_states(self):
        self.memory = None

    def forward(self, inputs):
        features, memory = self.core(inputs, self.memory)
        self.memory = self.keep(memory)
        return self.head(features[:, -1]).softmax(dim=-1)

    def keep(self, memory):
        return tuple(part.detach() for part in memory)
