"""Finished runs in words and tables."""

from __future__ import annotations

from typing import Any

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
    if ceiling is None or result["accuracy"] is None:
        return "Nothing was asked."
    low, high = result["accuracy_low"], result["accuracy_high"]
    if ceiling == chance:
        return f"The ceiling of the data path is chance, {chance:.1%}: no training could have learned anything here."
    if result["accuracy"] >= ceiling - _AT_THE_CEILING:
        return f"This is within 1 % of the ceiling of the data path, {ceiling:.1%}: what could be learned was learned."
    if memory_length is not None and memory_length <= found.lag:
        sees = "the current symbol alone" if memory_length == 1 else f"the last {memory_length} symbols alone"
        return (
            f"The data path allows {ceiling:.1%}, but this network sees {sees}, and the answer lies {found.lag} back."
        )
    if low <= chance <= high:
        return f"This is chance, although the data path allows {ceiling:.1%}; {_where_the_gradient_gets(found)}."
    return (
        f"This lies between chance and the ceiling of the data path, {ceiling:.1%}; {_where_the_gradient_gets(found)}."
    )


def _where_the_gradient_gets(found: Reach) -> str:
    if not found.in_horizon_share:
        return "no gradient gets from a question to where its answer was read"
    share = f"{found.in_horizon_share:.0%}"
    return f"the gradient gets from {share} of the questions to where their answer was read, so train longer or faster"
