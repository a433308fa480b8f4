"""Models with every kind of state: bare tensors, cells, lists, dicts, a learned start, a cache, complex numbers."""

import importlib.util
import itertools
from pathlib import Path

import torch
from torch import nn

from echo_torch import one_hot_encode

SYMBOLS = 5
EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    """A module out of examples/."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Model(nn.Module):
    def __init__(self, features=4):
        super().__init__()
        self.features = features
        self.head = nn.Linear(features, SYMBOLS)

    def zeros(self, *shape):
        return self.head.weight.new_zeros(shape)

    def encode(self, symbols):
        return one_hot_encode(symbols, SYMBOLS).to(self.head.weight.dtype)


class BareGRU(_Model):
    """nn.GRU's own state: one tensor (layers, lanes, features)."""

    def __init__(self):
        super().__init__()
        self.core = nn.GRU(SYMBOLS, self.features, num_layers=2, batch_first=True)

    def initial_state(self, num_lanes):
        return self.zeros(2, num_lanes, self.features)

    def forward(self, symbols, state):
        output, state = self.core(self.encode(symbols), state)
        return self.head(output), state


class BareRNN(BareGRU):
    """nn.RNN's own state: the same."""

    def __init__(self):
        super().__init__()
        self.core = nn.RNN(SYMBOLS, self.features, num_layers=2, batch_first=True)


class BareLSTM(BareGRU):
    """nn.LSTM's own state: a tuple of two."""

    def __init__(self):
        super().__init__()
        self.core = nn.LSTM(SYMBOLS, self.features, num_layers=2, batch_first=True)

    def initial_state(self, num_lanes):
        return super().initial_state(num_lanes), super().initial_state(num_lanes)


class Cell(_Model):
    """A loop around nn.LSTMCell: a tuple of (lanes, features)."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(SYMBOLS, self.features)

    def initial_state(self, num_lanes):
        return self.zeros(num_lanes, self.features), self.zeros(num_lanes, self.features)

    def forward(self, symbols, state):
        outputs = []
        for step in self.encode(symbols).unbind(dim=1):
            state = self.cell(step, state)
            outputs.append(state[0])
        return self.head(torch.stack(outputs, dim=1)), state


class Layers(_Model):
    """A list of (hidden, cell), one for each layer, of different sizes; None and a number pass through."""

    def __init__(self):
        super().__init__()
        sizes = [SYMBOLS, 3, self.features]
        self.cores = nn.ModuleList(nn.LSTM(*pair, batch_first=True) for pair in itertools.pairwise(sizes))

    def initial_state(self, num_lanes):
        return [*((self.zeros(1, num_lanes, n), self.zeros(1, num_lanes, n)) for n in (3, self.features)), None, 7]

    def forward(self, symbols, state):
        output, kept = self.encode(symbols), []
        for core, part in zip(self.cores, state, strict=False):
            output, part = core(output, part)
            kept.append(part)
        return self.head(output), [*kept, None, 7]


class Named(_Model):
    """A dict, its lanes on the last axis of one field and on the first of the other."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(SYMBOLS + self.features, self.features)

    def initial_state(self, num_lanes):
        return {"slow": self.zeros(num_lanes, 1, self.features), "fast": self.zeros(self.features, num_lanes)}

    def forward(self, symbols, state):
        fast, slow, outputs = state["fast"].T, state["slow"][:, 0], []
        for step in self.encode(symbols).unbind(dim=1):
            fast = torch.tanh(self.mix(torch.cat([step, fast], dim=1)))
            slow = 0.7 * slow + fast
            outputs.append(slow)
        return self.head(torch.stack(outputs, dim=1)), {"fast": fast.T, "slow": slow[:, None]}


class LearnedStart(BareGRU):
    """Lanes that begin with weights of the model."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.linspace(-0.5, 0.5, 2 * self.features).view(2, 1, -1))

    def initial_state(self, num_lanes):
        return self.start.expand(-1, num_lanes, -1).contiguous()


def _cache():
    return example("transformer").CachedAttention(SYMBOLS, width=8, heads=2, window=3)


def _complex():
    return example("state_space").StateSpace(SYMBOLS, width=4)


KINDS = {
    "nn.GRU": BareGRU,
    "nn.RNN": BareRNN,
    "nn.LSTM": BareLSTM,
    "LSTMCell": Cell,
    "list": Layers,
    "dict": Named,
    "learned start": LearnedStart,
    "cache of rank 4": _cache,
    "complex": _complex,
}


def make(kind, seed=0):
    """A model of this kind, its first weights drawn from the seed."""
    torch.manual_seed(seed)
    return KINDS[kind]()
