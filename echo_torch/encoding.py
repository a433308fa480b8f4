"""Symbols to network input, network output to loss and symbols."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NOT_ASKED = -100  # what cross-entropy ignores by default


def one_hot_encode(symbols: Sequence[int] | Tensor, vocabulary_size: int = 100) -> Tensor:
    """Write every symbol as a vector with a single 1.

    >>> one_hot_encode([2, 0], vocabulary_size=3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])

    Args:
        symbols: Integers 0..vocabulary_size-1, any shape; -1 (nothing is read) gives a vector of zeros.
        vocabulary_size: Number of different symbols.

    Returns:
        float32 of shape (*symbols.shape, vocabulary_size).

    Raises:
        TypeError: If the symbols are not integers.
        ValueError: If a symbol lies outside the vocabulary.

    Source:
        Brownlee (2017), `one_hot_encode`.
    """
    symbols = torch.as_tensor(symbols)
    check_symbols(symbols, vocabulary_size)
    # One comparison against 0..n-1: faster than F.one_hot (int64, then a cast), and -1 matches nothing.
    return symbols.unsqueeze(-1).eq(torch.arange(vocabulary_size, device=symbols.device)).float()


def one_hot_decode(vectors: Tensor) -> list[int]:
    """The symbol of every vector: the position of its largest number.

    >>> one_hot_decode(one_hot_encode([7, 2, 9]))
    [7, 2, 9]

    Args:
        vectors: (steps, vocabulary_size): one-hot vectors, probabilities or logits.

    Returns:
        One integer for each step.

    Raises:
        ValueError: If `vectors` has not two axes.

    Source:
        Brownlee (2017), `one_hot_decode`.
    """
    if vectors.ndim != 2:
        raise ValueError(
            "`vectors` must have two axes, (steps, vocabulary_size), because one sequence is decoded at a time. "
            f"Got shape {tuple(vectors.shape)}. Take one lane: `vectors[lane]`."
        )
    decoded: list[int] = most_likely(vectors).tolist()
    return decoded


def most_likely(logits: Tensor) -> Tensor:
    """The symbol the network answers: int64 of shape `logits.shape[:-1]`."""
    return logits.argmax(dim=-1)


def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over the asked targets.

    Args:
        logits: float (lanes, steps, vocabulary_size).
        targets: int64 (lanes, steps), -100 where nothing is asked.

    Returns:
        A scalar; exactly 0 where nothing is asked.
    """
    return F.cross_entropy(logits.flatten(end_dim=-2), targets.flatten(), ignore_index=NOT_ASKED, reduction="sum")


def count_correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many asked targets are answered right: int64 scalar. A target of -100 equals no symbol."""
    return most_likely(logits).eq(targets).sum()


def count_asked(targets: Tensor) -> Tensor:
    """How many targets are asked: int64 scalar."""
    return targets.ne(NOT_ASKED).sum()


def check_symbols(symbols: Tensor, vocabulary_size: int) -> None:
    """Refuse what is not a tensor of symbols.

    Args:
        symbols: Any shape.
        vocabulary_size: Number of different symbols.

    Raises:
        TypeError: If the symbols are not integers.
        ValueError: If a symbol is below -1 or not below vocabulary_size.
    """
    if symbols.is_floating_point() or symbols.is_complex() or symbols.dtype == torch.bool:
        raise TypeError(
            f"`symbols` must be integers, the symbols themselves, not vectors or shares. Got dtype {symbols.dtype}. "
            "One-hot vectors become symbols with `one_hot_decode`."
        )
    if symbols.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(symbols))
    if low < -1 or high >= vocabulary_size:
        wrong = low if low < -1 else high
        raise ValueError(
            f"`symbols` must lie in 0..{vocabulary_size - 1} (or be -1, nothing is read), because the network has "
            f"one input for each symbol. Got {wrong}. Make `vocabulary_size` at least {max(wrong + 1, 1)} or change "
            "the data."
            if wrong >= 0
            else f"`symbols` must lie in 0..{vocabulary_size - 1} (or be -1, nothing is read). Got {wrong}."
        )
