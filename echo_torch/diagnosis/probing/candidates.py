"""The inputs with which a model is tried, where nobody says what it reads: the likeliest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echo_torch.diagnosis.probing.calling import first_module, vocabulary_of
from echo_torch.diagnosis.probing.inputs import EXAMPLE, Inputs, example_sizes, like_example
from echo_torch.errors import RuleError

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Candidate:
    """Inputs that a model may read.

    Attributes:
        inputs: What they are.
        words: The same in a sentence.
        sizes: (lanes, steps) of the example that they are like; None where there is none.
    """

    inputs: Inputs
    words: str
    sizes: tuple[int, int] | None = None


def candidates_of(
    model: Any, given: Any, vocabulary_size: int | None, device: torch.device | str | None
) -> list[Candidate]:
    """The inputs that are tried, the likeliest first.

    Args:
        model: The model.
        given: `inputs` of `probe`.
        vocabulary_size: As of `probe`.
        device: As of `probe`.

    Raises:
        RuleError: If nothing tells what the model reads.
    """
    name, layer = first_module(model, _RECURRENT)
    is_time_first = layer is not None and not getattr(layer, "batch_first", True)
    is_time_first &= not callable(getattr(model, "initial_state", None))  # whose inputs are (lanes, steps)
    why = f", as `{name}` is not batch_first" if is_time_first else ""
    device = _device_of(model) if device is None else device
    if callable(given) and not isinstance(given, nn.Module):
        return [Candidate(Inputs(given, device, vocabulary_size), "inputs: as `inputs` makes them")]
    if given is not None:
        return _like_examples(given, vocabulary_size, device, is_time_first, why)
    if isinstance(layer, nn.RNNCellBase) and layer is model:
        return [_single_steps(layer, _dtype_of(model), device, f"inputs: floats (lanes, {layer.input_size})")]
    found = []
    for steps_first in (True, False) if is_time_first else (False, True):
        order = f"(steps, lanes){why}" if steps_first else "(lanes, steps)"
        if steps_first != is_time_first:
            order += ", because the model raises at the other order"
        found.append((steps_first, order))
    if callable(getattr(model, "initial_state", None)):
        found = found[:1]
    made = [_made(model, vocabulary_size, device, *one) for one in found]
    if vocabulary_size is None and vocabulary_of(model)[0] is None and _has_only_cells(model):
        words = f"inputs: floats (lanes, {layer.input_size}), as `{name}` reads them, because the model raises at steps"
        made.append(_single_steps(layer, _dtype_of(model), device, words))
    return made


def _like_examples(
    example: Any, vocabulary_size: int | None, device: torch.device | str, is_time_first: bool, why: str
) -> list[Candidate]:
    """As the example is; then, where it is a pair of inputs and answers, its first; then with the axes exchanged."""
    parts = [(example, "")]
    if isinstance(example, (tuple, list)) and len(example) > 1 and isinstance(example[0], Tensor):
        parts.append((example[0], "the first part of "))
    found = []
    for steps_first in (is_time_first, not is_time_first):
        for part, which in parts:
            lanes, steps = example_sizes(part, is_time_first=steps_first)
            if steps_first != is_time_first and lanes == steps:
                continue  # a model that confuses the axes raises nothing there, so it must not be read the other way
            order = ("steps first" if steps_first else "lanes first") + (why if steps_first == is_time_first else "")
            if which or steps_first != is_time_first:
                order += ", because the model raises otherwise"
            words = f"inputs: drawn between the least and the greatest of {which}the example, {order}"
            make = like_example(part, is_time_first=steps_first)
            found.append(Candidate(Inputs(make, device, vocabulary_size), words, (lanes, steps)))
    return found


def _made(
    model: Any, vocabulary_size: int | None, device: torch.device | str, steps_first: bool, order: str
) -> Candidate:
    number, where = (vocabulary_size, "`vocabulary_size`") if vocabulary_size is not None else vocabulary_of(model)
    if number is not None:
        inputs = Inputs(_integers(number, steps_first), device, number)
        return Candidate(inputs, f"inputs: integers below {number}, {where}, {order}")
    name, layer = first_module(model, _RECURRENT)
    if layer is None:
        rule = "$inputs must say what the model reads: it has no embedding and no recurrent layer that would tell"
        raise RuleError(
            "inputs", rule, type(model).__name__, way_out=f"give $vocabulary_size for symbols, else {EXAMPLE}"
        )
    inputs = Inputs(_floats(layer.input_size, _dtype_of(model), steps_first), device)
    return Candidate(inputs, f"inputs: floats, {layer.input_size} for each step, as `{name}` reads them, {order}")


def _single_steps(cell: Any, dtype: torch.dtype, device: torch.device | str, words: str) -> Candidate:
    return Candidate(Inputs(lambda lanes, steps: torch.randn(lanes, cell.input_size, dtype=dtype), device), words)


def _has_only_cells(model: Any) -> bool:
    """Whether two axes can only be lanes and features: to `nn.LSTM` they would be steps and features."""
    return first_module(model, nn.RNNCellBase)[1] is not None and first_module(model, nn.RNNBase)[1] is None


def _integers(number: int, steps_first: bool) -> Callable[[int, int], Tensor]:
    return lambda lanes, steps: torch.randint(number, (steps, lanes) if steps_first else (lanes, steps))


def _floats(size: int, dtype: torch.dtype, steps_first: bool) -> Callable[[int, int], Tensor]:
    return lambda lanes, steps: torch.randn(*((steps, lanes) if steps_first else (lanes, steps)), size, dtype=dtype)


def _device_of(model: Any) -> torch.device | str:
    parameters = getattr(model, "parameters", None)
    weight = next(iter(parameters()), None) if callable(parameters) else None
    return "cpu" if weight is None else weight.device


def _dtype_of(model: Any) -> torch.dtype:
    return next(
        (weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.get_default_dtype()
    )
