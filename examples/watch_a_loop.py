"""A plain loop under `watch`: what does it do with its state? It is not changed, and nothing is told of the data."""

import torch
from torch import nn

from echo_torch import watch


class Language(nn.Module):
    def __init__(self, words=30, size=16):
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(words, size), nn.LSTM(size, size), nn.Linear(size, words)

    def forward(self, words, state):
        features, state = self.lstm(self.embedding(words), state)
        return self.head(features), state


def as_it_should_be(state):
    return tuple(field.detach() for field in state)


def in_the_wrong_order(state):
    hidden, cells = state
    return cells.detach(), hidden.detach()


def without_the_result(state):
    for field in state:
        field.detach()
    return state


def train(hand_on, steps=12, rows=4):
    torch.manual_seed(0)
    model, state = Language(), None
    optimizer = torch.optim.Adam(model.parameters())
    text = torch.randint(30, (20 * steps + 1, rows))
    with watch(model) as seen:
        for begin in range(0, 20 * steps, steps):
            scores, state = model(text[begin : begin + steps], state)
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), text[begin + 1 : begin + steps + 1].flatten())
            optimizer.zero_grad()
            try:
                loss.backward()
            except RuntimeError as error:
                print(f"it ends with: {str(error)[:60]}...")
                break
            optimizer.step()
            state = hand_on(state)
    print(f"{hand_on.__name__}: " + "\n  ".join(seen.lines()))


if __name__ == "__main__":
    for hand_on in (as_it_should_be, in_the_wrong_order, without_the_result):
        train(hand_on)
