"""A small recurrent model and the plain loop that trains it, for tests of what `watch` sees."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Reader(nn.Module):
    """A layer and a head: symbols or numbers in, a number for each step and the state out."""

    def __init__(self, kind: type[nn.Module] = nn.GRU, *, symbols: int = 0, size: int = 3, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(symbols, size) if symbols else nn.Identity()
        self.core = kind(size, 5, **options)
        self.head = nn.Linear(5 * (1 + options.get("bidirectional", False)), 1)

    def forward(self, read: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        features, state = self.core(self.embedding(read), state)
        return self.head(features), state


def drop(state: Any) -> None:
    """Hand no state on."""


def detached(state: Any) -> Any:
    return state.detach() if isinstance(state, Tensor) else tuple(field.detach() for field in state)


def train(model: nn.Module, batches: Iterable[Any], hand_on: Callable[[Any], Any] = detached, state: Any = None) -> Any:
    """An update for each batch; `hand_on` stands between two of them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in batches:
        optimizer.zero_grad()
        output, state = model(batch, state)
        output.square().mean().backward()
        optimizer.step()
        state = hand_on(state)
    return state


def fit(model: nn.Module, samples: Iterable[Any]) -> None:
    """An update for each sample, of a model that reads it whole and keeps its states to itself."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for sample in samples:
        optimizer.zero_grad()
        model(sample).square().mean().backward()
        optimizer.step()
