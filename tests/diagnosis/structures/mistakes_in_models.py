"""Models and ways to hand their state on that do not do what a state must, each beside a healthy one."""

import torch
from torch import nn

WORDS, SIZE = 12, 8


class Model(nn.Module):
    """Healthy: words (lanes, steps) and a state in, scores and a state out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, SIZE)
        self.rnn = nn.LSTM(SIZE, SIZE, batch_first=True)
        self.output = nn.Linear(SIZE, WORDS)

    def initial_state(self, lanes):
        return torch.zeros(1, lanes, SIZE), torch.zeros(1, lanes, SIZE)

    def forward(self, words, state):
        features, state = self.rnn(self.embedding(words), state)
        return self.output(features), state


class Keeping(Model):
    """Healthy, the state kept on the module."""

    def __init__(self):
        super().__init__()
        self.state = None

    def forward(self, words):
        features, state = self.rnn(self.embedding(words), self.state)
        self.state = tuple(field.detach() for field in state)
        return self.output(features)


def words_of_rows(lanes, steps):
    """As the loader makes them: lanes first."""
    return torch.randint(WORDS, (lanes, steps))


# --- in the model ------------------------------------------------------------------------------------------------


class BatchFirstForgotten(Model):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(SIZE, SIZE)  # words are (lanes, steps)


class BeginsAnew(Model):
    def forward(self, words, state):
        state = self.initial_state(len(words))
        features, state = self.rnn(self.embedding(words), state)
        return self.output(features), state


class NotFedBack(Keeping):
    def forward(self, words):
        features, _ = self.rnn(self.embedding(words), self.state)
        return self.output(features)


class KeptWithItsGraph(Keeping):
    def forward(self, words):
        features, self.state = self.rnn(self.embedding(words), self.state)
        return self.output(features)


class BothDirections(Model):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(SIZE, SIZE // 2, bidirectional=True, batch_first=True)

    def initial_state(self, lanes):
        return torch.zeros(2, lanes, SIZE // 2), torch.zeros(2, lanes, SIZE // 2)


class FieldsExchanged(Model):
    def forward(self, words, state):
        features, (cell, hidden) = self.rnn(self.embedding(words), state)  # it is (hidden, cell)
        return self.output(features), (hidden, cell)


class DetachedAtEveryStep(Model):
    """A mistake that none of the checks sees: the gradient goes back one step."""

    def forward(self, words, state):
        outputs = []
        for step in self.embedding(words).split(1, dim=1):
            features, state = self.rnn(step, tuple(field.detach() for field in state))
            outputs.append(self.output(features))
        return torch.cat(outputs, dim=1), state


# --- between two chunks ------------------------------------------------------------------------------------------


def reset(state, starts):
    """Zeros where a lane starts."""
    return tuple(field.masked_fill(starts.view(1, -1, 1), 0) for field in state)


def detached_and_reset(state, starts):
    """The healthy hand-over."""
    return reset(tuple(field.detach() for field in state), starts)


def tuple_not_detached(state, starts):
    if isinstance(state, torch.Tensor):
        state = state.detach()
    return reset(state, starts)


def result_dropped(state, starts):
    for field in state:
        field.detach()
    return reset(state, starts)


def averaged(state, starts):
    state = tuple(field.detach().mean(dim=1, keepdim=True).expand_as(field) for field in state)
    return reset(state, starts)


def transposed(state, starts):
    state = tuple(field.detach().transpose(1, 2).contiguous() for field in state)
    return reset(state, starts)


def mask_on_the_features(state, starts):
    return tuple(field.detach().masked_fill(starts, 0) for field in state)
