"""Models of a user's own, good ones and bad ones: `support.own_models:GRU` on a command line."""

import torch
from torch import nn

from echo_torch import one_hot_encode


class GRU(nn.Module):
    """A state that is one bare tensor (lanes, width)."""

    def __init__(self, vocabulary_size, width=8):
        super().__init__()
        self.size, self.width = vocabulary_size, width
        self.cell = nn.GRUCell(vocabulary_size, width)
        self.head = nn.Linear(width, vocabulary_size)

    def initial_state(self, num_lanes):
        return self.head.weight.new_zeros(num_lanes, self.width)

    def forward(self, symbols, state):
        hidden = []
        for column in one_hot_encode(symbols, self.size).unbind(1):
            state = self.cell(column, state)
            hidden.append(state)
        return self.head(torch.stack(hidden, 1)), state


class Nested(GRU):
    """A nested state, dropout, a weight that no gradient reaches and a buffer."""

    def __init__(self, vocabulary_size, *, width=6, share=0.25, is_odd=False, **others):
        super().__init__(vocabulary_size, width)
        self.others = others
        self.unused = nn.Parameter(torch.randn(3))
        self.register_buffer("places", torch.arange(3))
        self.dropout = nn.Dropout(share)

    def initial_state(self, num_lanes):
        hidden = super().initial_state(num_lanes)
        return {"cells": [hidden, (hidden.new_zeros(2, num_lanes), None)], "steps": hidden.new_zeros(num_lanes)}

    def forward(self, symbols, state):
        hidden, (sums, nothing) = state["cells"]
        logits, hidden = super().forward(symbols, self.dropout(hidden))
        steps = state["steps"] + symbols.shape[1]
        return logits, {"cells": [hidden, (sums + symbols.clamp(min=0).sum(1), nothing)], "steps": steps}


class Half(GRU):
    """Weights in half precision, and a complex one."""

    def __init__(self, vocabulary_size, width=8):
        super().__init__(vocabulary_size, width)
        self.turn = nn.Parameter(torch.ones(width, dtype=torch.complex64))
        self.scale = nn.Parameter(torch.ones(width, dtype=torch.bfloat16))

    def forward(self, symbols, state):
        logits, state = super().forward(symbols, state)
        return (logits * self.turn.mean()).real * self.scale.float().mean(), state


class Learned(GRU):
    """It draws from Python's and numpy's generators too, and needs an argument."""

    def __init__(self, vocabulary_size, width, *, rate: float = 0.5):
        import random

        import numpy as np

        super().__init__(vocabulary_size, width)
        with torch.no_grad():
            self.head.bias += random.random() + np.random.random() * rate


class NoModule:
    """Not an nn.Module: never called."""

    def __init__(self, *args, **kwargs):
        raise AssertionError("it was called")

    forward = initial_state = __init__


class NoForward(nn.Module):
    def initial_state(self, num_lanes):
        return torch.zeros(num_lanes)


class NoState(nn.Module):
    def forward(self, symbols, state):
        return symbols, state


class Raises(GRU):
    def __init__(self, vocabulary_size):
        raise ValueError("width and height\nmust agree")


class NoWeights(GRU):
    def __init__(self, vocabulary_size):
        super().__init__(vocabulary_size)
        self.requires_grad_(False)


class Lazy(GRU):
    def __init__(self, vocabulary_size):
        super().__init__(vocabulary_size)
        self.head = nn.LazyLinear(vocabulary_size)


class OneLogit(GRU):
    """Answers for the last step alone."""

    def forward(self, symbols, state):
        logits, state = super().forward(symbols, state)
        return logits[:, -1], state


class OnlyLogits(GRU):
    def forward(self, symbols, state):
        return super().forward(symbols, state)[0]


class NoGaps(GRU):
    """Cannot read -1."""

    def __init__(self, vocabulary_size):
        super().__init__(vocabulary_size)
        self.table = nn.Embedding(vocabulary_size, vocabulary_size)

    def forward(self, symbols, state):
        self.table(symbols)
        return super().forward(symbols, state)


class OtherState(GRU):
    """Comes out with other lanes than went in."""

    def forward(self, symbols, state):
        logits, state = super().forward(symbols, state)
        return logits, state[:1]


class TiedLanes(GRU):
    """Lanes and heads on one axis, so that no lane can be told apart."""

    def initial_state(self, num_lanes):
        return torch.zeros(2 * num_lanes, self.width)

    def forward(self, symbols, state):
        logits, last = super().forward(symbols, state[: len(symbols)])
        return logits, torch.cat([last, last])


def function(vocabulary_size):
    raise AssertionError("it was called")


class Extra(GRU):
    """More in its state_dict than tensors."""

    def get_extra_state(self):
        return {"colour": "red"}

    def set_extra_state(self, state):
        pass
