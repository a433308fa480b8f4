"""How symbols are written for a network, shortened to what a line holds, and read back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from echo_torch.data.chunk_text import BETWEEN, in_columns
from echo_torch.models.encoding import Encoding, most_likely

_FIRST_SYMBOLS = 3  # and the last one, whose vectors are shown
_ALL_NUMBERS = 12  # of a longer vector only the ends, and what is around its 1
_ENDS = 3
_ALL_DIGITS = 3  # of more only the first two and the last


def vector_lines(symbols: Sequence[int], vocabulary_size: int, base: int | None) -> list[str]:
    """Some symbols as the vectors that a network reads, and what these are decoded to.

    Args:
        symbols: Integers 0..vocabulary_size-1.
        vocabulary_size: Number of different symbols.
        base: As of `Encoding`.
    """
    encoding = Encoding(vocabulary_size, base)

    def vector(symbol: int) -> Tensor:  # one at a time: all those of a large vocabulary fill the memory
        return encoding.encode(torch.tensor(symbol))

    decoded = [int(most_likely(vector(symbol), encoding.num_digits)) for symbol in symbols]
    shown = [*range(len(symbols))]
    if len(shown) > _FIRST_SYMBOLS + 1:
        shown = [*shown[:_FIRST_SYMBOLS], shown[-1]]
    width = max(len(str(symbols[place])) for place in shown)
    table = [[f"  {symbols[place]:{width}}", *_vector(vector(symbols[place]), encoding)] for place in shown]
    lines = in_columns(table)
    if len(symbols) > len(shown):
        lines.insert(_FIRST_SYMBOLS, f"  {BETWEEN}")
    same = "the same" if decoded == list(symbols) else "not the same"
    return [f"encoded, {_kind(encoding)}:", *lines, f"decoded, {same}: {decoded}"]


def _kind(encoding: Encoding) -> str:
    if encoding.base is None:
        return f"one-hot: {encoding.size:,} numbers for each symbol, 1 in its place and 0 elsewhere"
    return (
        f"as {encoding.num_digits} digits of base {encoding.base}, each one-hot: {encoding.size:,} numbers for each "
        "symbol"
    )


def _vector(vector: Tensor, encoding: Encoding) -> list[str]:
    """A vector in brackets, and in words where its ones stand."""
    digits = vector.int().reshape(encoding.num_digits, -1).tolist()
    texts = [_shortened(digit) for digit in digits]
    if len(texts) > _ALL_DIGITS:
        texts = [*texts[:2], BETWEEN, texts[-1]]
    places = " ".join(str(digit.index(1)) for digit in digits)
    return [" ".join(texts), f"1 at place {places}" if len(digits) == 1 else f"digits {places}"]


def _shortened(numbers: list[int]) -> str:
    """The ends of a vector and what is around its 1.

    >>> _shortened([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    '[0 0 0 ... 0 1 0 ... 0 0 0]'
    """
    place, last = numbers.index(1), len(numbers) - 1
    near = {*range(_ENDS), *range(place - 1, place + 2), *range(last - _ENDS + 1, last + 1)}
    shown = [n for n in range(len(numbers)) if len(numbers) <= _ALL_NUMBERS or n in near]
    parts: list[str] = []
    for before, number in zip([-1, *shown], shown, strict=False):
        parts += [BETWEEN] if number > before + 1 else []
        parts.append(str(numbers[number]))
    return f"[{' '.join(parts)}]"
