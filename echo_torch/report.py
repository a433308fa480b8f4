"""Finished runs in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from echo_torch.evaluation import wilson_interval
from echo_torch.reach import Reach

_AT_THE_CEILING = 0.01


def result_lines(result: dict[str, Any], expected: list[int], predicted: list[int]) -> list[str]:
    """What the evaluation found, and one sequence in the tutorial's form.

    Args:
        result: As in result.json, or the part of it that an evaluation makes.
        expected: The symbols asked in one sequence.
        predicted: The network's answers.
    """
    interval = f"95 % interval {result['accuracy_low']:.2%} to {result['accuracy_high']:.2%}"
    return [
        f"accuracy {result['accuracy']:.2%} ({interval}) on {result['targets']:,} fresh targets; "
        f"loss {result['loss']:.4f} nats; chance {result['chance']:.2%}",
        f"Expected:  {expected}",
        f"Predicted: {predicted}",
    ]


def implication(found: Reach, result: dict[str, Any], memory_length: int | None = None) -> str:
    """What the data path implies for a result: where it lies between chance and ceiling.

    Args:
        found: The reach of the training's chunks.
        result: As in result.json.
        memory_length: Steps that the network's answer can depend on; None: any number.
    """
    ceiling, chance = result["ceiling"], result["chance"]
    if result["accuracy"] is None:
        return "Nothing was asked."
    if ceiling is None:
        return "How far these numbers can be guessed is not known, so there is no ceiling to compare with."
    low, high = result["accuracy_low"], result["accuracy_high"]
    if ceiling == chance:
        return f"The ceiling of the data path is chance, {chance:.1%}: no training could have learned anything here."
    if result["accuracy"] >= ceiling - _AT_THE_CEILING:
        return f"This is within 1 % of the ceiling of the data path, {ceiling:.1%}: what could be learned was learned."
    if memory_length is not None and memory_length <= found.lag:
        sees = "the current symbol alone" if memory_length == 1 else f"the last {memory_length} symbols alone"
        return f"The data path allows {ceiling:.1%}, but this network sees {sees}; the answer lies {found.lag} back."
    if low <= chance <= high:
        return f"This is chance, although the data path allows {ceiling:.1%}; {_where_the_gradient_gets(found)}."
    return (
        f"This lies between chance and the ceiling of the data path, {ceiling:.1%}; {_where_the_gradient_gets(found)}."
    )


def answer_line(position: int, of: int, symbols: Sequence[int], symbol: int, top: Sequence[tuple[int, float]]) -> str:
    """One answer to a user's numbers, with the places it stands for.

    Args:
        position: The last number that was read.
        of: The position whose number is to be echoed.
        symbols: The user's numbers.
        symbol: The answer.
        top: Likely symbols with probabilities; may be empty.
    """
    likely = ", ".join(f"{value} ({probability:.1%})" for value, probability in top)
    verdict = "right" if symbols[of] == symbol else f"the number there is {symbols[of]}"
    return f"after position {position}: {symbol} for position {of}, {verdict}" + (f"; {likely}" if likely else "")


def explanation_lines(symbols: Sequence[int], shares: Sequence[float]) -> list[str]:
    """What the last answer depends on, a line for each number of the input; nothing where `shares` is empty."""
    if not shares:
        return []
    lines = ["the last answer changes when a number is replaced by another:"]
    for position, (symbol, share) in enumerate(zip(symbols, shares, strict=True)):
        lines.append(f"  position {position}, {symbol}: in {share:.0%} of the replacements {'#' * round(20 * share)}")
    return lines


def ahead_line(right: int, asked: int, vocabulary_size: int) -> str:
    """Whether a run can tell the next random number; chance is what lies within four standard deviations of it."""
    low, high = wilson_interval(right, asked)
    chance = 1 / vocabulary_size
    measured = (
        f"the next number was told in {right / asked:.2%} of {asked:,} cases (95 % interval {low:.2%} to {high:.2%}); "
        f"chance is {chance:.2%}"
    )
    if abs(right / asked - chance) > 4 * (chance * (1 - chance) / asked) ** 0.5:
        return f"{measured}, and this is not chance: the numbers are not random"
    return (
        f"{measured}: each number is drawn independently of those before it, so nothing that was read says anything "
        "about the next one"
    )


def _where_the_gradient_gets(found: Reach) -> str:
    if not found.in_horizon_share:
        return "no gradient gets from a question to where its answer was read"
    share = f"{found.in_horizon_share:.0%}"
    return f"the gradient gets from {share} of the questions to where their answer was read, so train longer or faster"
