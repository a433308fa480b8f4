"""Random symbols as a pure function of where they stand.

A symbol depends on seed, split, sequence and step and on nothing else: no generator is advanced, so any
part of the data can be had at any time, in any order, by any number of workers, at the same cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from echo_torch.errors import RuleError

Integers: TypeAlias = NDArray[np.int64]

SPLITS = ("training", "evaluation")
MAX_VOCABULARY_SIZE = 2**31

# The weyl constant and the two multipliers of splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
_WEYL = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)
_LOW_HALF = np.uint64(0xFFFFFFFF)


def symbol(seed: int, split: str, sequence: ArrayLike, step: ArrayLike, vocabulary_size: int) -> Integers:
    """The symbol at a step of a sequence, for arrays of places at once.

    A counter hash: seed, split, sequence and step go through splitmix64 one after another, and the 64 bits are
    scaled into the range by the high half of a product. No value is rejected, so the cost is constant; the
    probability of a symbol differs from 1/vocabulary_size by less than 2**-64.

    Args:
        seed: Which data set, 0 <= seed < 2**64.
        split: "training" or "evaluation"; the two never share a stream.
        sequence: Number of the sequence, >= 0, any shape that broadcasts with `step`.
        step: Position in the sequence, >= 0.
        vocabulary_size: Number of different symbols, 1 <= vocabulary_size <= 2**31.

    Returns:
        int64 array of the broadcast shape, values 0..vocabulary_size-1.

    Raises:
        RuleError: If the split is unknown or the seed or the vocabulary size is out of range.
    """
    if not 1 <= vocabulary_size <= MAX_VOCABULARY_SIZE:
        raise RuleError(
            "vocabulary_size",
            f"$vocabulary_size must be between 1 and {MAX_VOCABULARY_SIZE}",
            vocabulary_size,
            reason="so that a product with half a hash fits into 64 bits",
        )
    bits = _hash(seed, split, sequence, step)
    with np.errstate(over="ignore"):
        size = np.uint64(vocabulary_size)
        high = (bits >> np.uint64(32)) * size
        low = (bits & _LOW_HALF) * size
        scaled = (high + (low >> np.uint64(32))) >> np.uint64(32)
    shape = np.broadcast_shapes(np.shape(sequence), np.shape(step))
    return scaled.astype(np.int64).reshape(shape)


def missing(seed: int, split: str, sequence: ArrayLike, step: ArrayLike, share: float) -> NDArray[np.bool_]:
    """Whether the symbol at a step of a sequence is missing from the data, for arrays of places at once.

    A pure function of the place, as `symbol` is and independent of it: a symbol is missing from every window it
    stands in, or from none.

    Args:
        seed: Which data set, 0 <= seed < 2**64.
        split: "training" or "evaluation".
        sequence: Number of the sequence, >= 0, any shape that broadcasts with `step`.
        step: Position in the sequence.
        share: The probability of being missing, 0 <= share < 1.

    Returns:
        bool array of the broadcast shape.

    Raises:
        RuleError: If the split is unknown, or the seed or the share is out of range.
    """
    if not 0 <= share < 1:
        raise RuleError("share", "$share must be at least 0 and below 1: some symbol must be left", share)
    bits = _hash(seed, split, sequence, step)
    with np.errstate(over="ignore"):
        bits = _mix(bits + _WEYL)  # one round more than the symbol of the same place
    shape = np.broadcast_shapes(np.shape(sequence), np.shape(step))
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share).reshape(shape)


def count_digits(vocabulary_size: int, base: int) -> int:
    """Digits that the largest of so many symbols has in a base."""
    number, reached = 1, base
    while reached < vocabulary_size:
        number, reached = number + 1, reached * base
    return number


def generate_sequence(
    length: int = 25, vocabulary_size: int = 100, *, seed: int = 1, split: str = "training", sequence: int = 0
) -> list[int]:
    """One random sequence, as a list of integers.

    >>> generate_sequence(5)
    [77, 94, 79, 27, 10]

    Args:
        length: Steps in the sequence, at least 1.
        vocabulary_size: Number of different symbols.
        seed: Which data set.
        split: "training" or "evaluation".
        sequence: Which sequence of the data set; another number gives another sequence.

    Returns:
        `length` integers 0..vocabulary_size-1, the very ones that a stream of the same seed reads.

    Source:
        Brownlee (2017), `generate_sequence`.
    """
    if length < 1:
        raise RuleError("length", "$length must be at least 1: a sequence has steps", length)
    values: list[int] = symbol(seed, split, sequence, np.arange(length), vocabulary_size).tolist()
    return values


@dataclass(frozen=True)
class Missing:
    """Which symbols are missing, as a function of their places.

    Attributes:
        share: The probability of being missing, 0 <= share < 1.
        seed: Which data set.
        split: "training" or "evaluation".
    """

    share: float
    seed: int = 1
    split: str = "training"

    def __post_init__(self) -> None:
        missing(self.seed, self.split, 0, 0, self.share)

    def __call__(self, sequence: Integers, step: Integers) -> NDArray[np.bool_]:
        """Whether the symbols of the given places are missing: bool of the broadcast shape."""
        return missing(self.seed, self.split, sequence, step, self.share)


@dataclass(frozen=True)
class RandomSymbols:
    """The source a stream reads from: places in, symbols out.

    >>> import numpy as np
    >>> symbols = RandomSymbols(vocabulary_size=10, seed=1)
    >>> symbols(np.array([3]), np.array([7])).shape
    (1,)

    Attributes:
        vocabulary_size: Number of different symbols.
        seed: Which data set.
        split: "training" or "evaluation".
    """

    vocabulary_size: int = 100
    seed: int = 1
    split: str = "training"

    def __post_init__(self) -> None:
        symbol(self.seed, self.split, 0, 0, self.vocabulary_size)  # refuse bad values here, not in a worker

    def __call__(self, sequence: Integers, step: Integers) -> Integers:
        """Symbols of the given places.

        Args:
            sequence: int64, broadcasts with `step`.
            step: int64; a negative step is no place.

        Returns:
            int64 of the broadcast shape; -1 where the step is negative.
        """
        values = symbol(self.seed, self.split, sequence, step, self.vocabulary_size)
        values[np.broadcast_to(step < 0, values.shape)] = -1
        return values


def _hash(seed: int, split: str, sequence: ArrayLike, step: ArrayLike) -> NDArray[np.uint64]:
    """64 bits for every place."""
    if split not in SPLITS:
        raise RuleError("split", f"$split must be one of {', '.join(SPLITS)}", repr(split))
    if not 0 <= seed < 2**64:
        raise RuleError("seed", "$seed must fit into 64 bits, 0 <= seed < 2**64", seed)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what the hash is made of
        key = _mix(np.asarray([seed], dtype=np.uint64))
        key = _mix(key + _WEYL * np.uint64(1 + SPLITS.index(split)))
        key = _mix(key + _WEYL * np.asarray(sequence).astype(np.uint64))
        return _mix(key + _WEYL * np.asarray(step).astype(np.uint64))


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _FACTOR_1
    bits = (bits ^ (bits >> np.uint64(27))) * _FACTOR_2
    return bits ^ (bits >> np.uint64(31))
