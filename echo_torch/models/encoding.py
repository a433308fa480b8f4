"""Symbols to network input, network output to loss and symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from echo_torch.data.chunk import NOT_ASKED
from echo_torch.data.random_symbols import count_digits
from echo_torch.errors import RuleError


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
        RuleError: If the symbols are not integers.
        RuleError: If a symbol lies outside the vocabulary.

    Source:
        Brownlee (2017), `one_hot_encode`.
    """
    symbols = torch.as_tensor(symbols)
    check_symbols(symbols, vocabulary_size)
    return _one_hot(symbols, vocabulary_size)


def _one_hot(symbols: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    # One comparison against 0..n-1: faster than F.one_hot (int64, then a cast), and -1 matches nothing.
    return symbols.unsqueeze(-1).eq(torch.arange(size, device=symbols.device)).to(dtype)


def one_hot_decode(vectors: Tensor) -> list[int]:
    """The symbol of every vector: the position of its largest number.

    >>> one_hot_decode(one_hot_encode([7, 2, 9]))
    [7, 2, 9]

    Args:
        vectors: (steps, vocabulary_size): one-hot vectors, probabilities or logits.

    Returns:
        One integer for each step.

    Raises:
        RuleError: If `vectors` has not two axes.

    Source:
        Brownlee (2017), `one_hot_decode`.
    """
    if vectors.ndim != 2:
        raise RuleError(
            "vectors",
            "$vectors must have two axes, (steps, vocabulary_size)",
            f"shape {tuple(vectors.shape)}",
            reason="because one sequence is decoded at a time",
            way_out="take one lane: `vectors[lane]`",
        )
    decoded: list[int] = most_likely(vectors).tolist()
    return decoded


@dataclass(frozen=True)
class Encoding:
    """How symbols are written for a network: as digits of a base, each digit one-hot.

        vocabulary_size=1000, base=10     symbol 407 is written 4 0 7: three vectors of ten, thirty numbers
        vocabulary_size=100, base=None    one digit of base 100: the tutorial's one-hot vector

    The network answers in the same form, a logit for each value of each digit, and is right only if all digits are.

    Attributes:
        vocabulary_size: Number of different symbols, at least 1.
        base: Values that a digit can have, at least 2; None: as many as there are symbols, one digit.

    Raises:
        RuleError: If a number is too small.
    """

    vocabulary_size: int
    base: int | None = None

    def __post_init__(self) -> None:
        if self.vocabulary_size < 1:
            raise RuleError(
                "vocabulary_size",
                "$vocabulary_size must be at least 1: a network has no empty part",
                self.vocabulary_size,
            )
        if self.base is not None and self.base < 2:
            raise RuleError("base", "$base must be at least 2: a digit tells something apart", self.base)

    @property
    def num_digits(self) -> int:
        """Digits of the largest symbol."""
        return 1 if self.base is None else count_digits(self.vocabulary_size, self.base)

    @property
    def size(self) -> int:
        """Numbers that stand for a symbol, on the way in and on the way out."""
        return self.vocabulary_size if self.base is None else self.num_digits * self.base

    def encode(self, symbols: Tensor) -> Tensor:
        """Symbols (...) to network input, float32 (..., size); -1 (nothing is read) gives zeros."""
        check_symbols(symbols, self.vocabulary_size)
        return self.encode_checked(symbols)

    def encode_checked(self, symbols: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `encode`, of symbols that are known to lie in the vocabulary: a look at each costs as much as encoding.

        Args:
            symbols: As of `encode`.
            dtype: Of the result: that of the network's weights.
        """
        if self.base is None:
            return _one_hot(symbols, self.vocabulary_size, dtype)
        digits = to_digits(symbols, self.base, self.num_digits, where_negative=-1)
        return _one_hot(digits, self.base, dtype).flatten(-2)


def to_digits(symbols: Tensor, base: int, num_digits: int, *, where_negative: int) -> Tensor:
    """The digits of symbols, the highest first.

    >>> to_digits(torch.tensor([407, -1]), base=10, num_digits=3, where_negative=-1)
    tensor([[ 4,  0,  7],
            [-1, -1, -1]])

    Args:
        symbols: int64, any shape.
        base: Values that a digit can have.
        num_digits: Digits of each symbol.
        where_negative: What stands for each digit of a negative symbol.

    Returns:
        int64 (*symbols.shape, num_digits).
    """
    powers = base ** torch.arange(num_digits - 1, -1, -1, device=symbols.device)
    digits = symbols.unsqueeze(-1) // powers % base
    return digits.masked_fill(symbols.unsqueeze(-1) < 0, where_negative)


def most_likely(logits: Tensor, num_digits: int = 1) -> Tensor:
    """The symbol the network answers, the most likely value of each digit: int64 of shape `logits.shape[:-1]`."""
    if num_digits == 1:
        return logits.argmax(dim=-1)
    base = logits.shape[-1] // num_digits
    digits = logits.reshape(*logits.shape[:-1], num_digits, base)  # spelled out: there may be no rows
    powers = base ** torch.arange(num_digits - 1, -1, -1, device=logits.device)
    symbols: Tensor = (digits.argmax(dim=-1) * powers).sum(dim=-1)
    return symbols


def top_symbols(logits: Tensor, count: int, num_digits: int = 1) -> tuple[Tensor, Tensor]:
    """The most likely symbols with their probabilities; that of a symbol is the product of its digits'.

    Args:
        logits: float (rows, size).
        count: How many, at most as many as there are symbols.
        num_digits: The encoding's.

    Returns:
        Symbols int64 and probabilities float, both (rows, count), the likeliest first.
    """
    base = logits.shape[-1] // num_digits
    digits = logits.reshape(len(logits), num_digits, base).softmax(dim=-1)
    symbols, shares = torch.zeros(len(logits), 1, dtype=torch.int64), torch.ones(len(logits), 1)
    for digit in digits.unbind(dim=1):
        # Only the likeliest beginnings can become the likeliest symbols.
        symbols = (symbols.unsqueeze(2) * base + torch.arange(base)).flatten(1)
        shares = (shares.unsqueeze(2) * digit.unsqueeze(1)).flatten(1)
        shares, places = shares.topk(min(count, shares.shape[1]))
        symbols = symbols.gather(1, places)
    return symbols, shares


def loss_sum(logits: Tensor, targets: Tensor, num_digits: int = 1) -> Tensor:
    """Cross-entropy in nats, summed over the asked targets and their digits.

    Args:
        logits: float (lanes, steps, size), size the encoding's.
        targets: int64 (lanes, steps), -100 where nothing is asked.
        num_digits: The encoding's; 1 is one-hot.

    Returns:
        A scalar, at least float32: a sum in half precision would lose its last parts. Exactly 0 where nothing is asked.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if num_digits > 1:
        logits = logits.reshape(*logits.shape[:-1], num_digits, logits.shape[-1] // num_digits)
        targets = to_digits(targets, logits.shape[-1], num_digits, where_negative=NOT_ASKED)
    return F.cross_entropy(logits.flatten(end_dim=-2), targets.flatten(), ignore_index=NOT_ASKED, reduction="sum")


def count_correct(logits: Tensor, targets: Tensor, num_digits: int = 1) -> Tensor:
    """How many asked targets are answered right: int64 scalar. A target of -100 equals no symbol."""
    return most_likely(logits, num_digits).eq(targets).sum()


def count_asked(targets: Tensor) -> Tensor:
    """How many targets are asked: int64 scalar."""
    return targets.ne(NOT_ASKED).sum()


def count_all(logits: Tensor, targets: Tensor, total: Tensor, num_digits: int = 1) -> Tensor:
    """What is pooled over many chunks: loss sum, right answers, asked targets, float64 (3,).

    Args:
        logits: As of `loss_sum`, like `targets` and `num_digits`.
        targets: What is asked.
        total: Their `loss_sum`.
        num_digits: Of each answer.
    """
    correct, asked = count_correct(logits, targets, num_digits), count_asked(targets)
    return torch.stack([total.double(), correct.double(), asked.double()])


def num_digits_of(model: object) -> int:
    """In how many digits a model answers: its encoding's, and 1 (one-hot) for a model without one."""
    return int(getattr(getattr(model, "encoding", None), "num_digits", 1))


def check_symbols(symbols: Tensor, vocabulary_size: int) -> None:
    """Refuse what is not a tensor of symbols.

    Args:
        symbols: Any shape.
        vocabulary_size: Number of different symbols.

    Raises:
        RuleError: If the symbols are not integers.
        RuleError: If a symbol is below -1 or not below vocabulary_size.
    """
    if symbols.is_floating_point() or symbols.is_complex() or symbols.dtype == torch.bool:
        raise RuleError(
            "symbols",
            "$symbols must be integers, the symbols themselves, not vectors or shares",
            f"dtype {symbols.dtype}",
            way_out="one-hot vectors become symbols with $one_hot_decode",
        )
    if symbols.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(symbols))
    if low < -1 or high >= vocabulary_size:
        wrong = low if low < -1 else high
        rule = f"$symbols must lie in 0..{vocabulary_size - 1} (or be -1, nothing is read)"
        if wrong < 0:
            raise RuleError("symbols", rule, wrong)
        reason = "because the network has one input for each symbol"
        way_out = f"make $vocabulary_size at least {wrong + 1} or change the data"
        raise RuleError("symbols", rule, wrong, reason=reason, way_out=way_out)
