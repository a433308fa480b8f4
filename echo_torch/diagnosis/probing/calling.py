"""How anyone's model is called: which argument of `forward` is the state, and which of its results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from echo_torch.diagnosis.probing.states import is_like
from echo_torch.errors import RuleError, plain

_STATES = {
    "carry", "cache", "h", "h0", "h_0", "h_in", "h_n", "h_prev", "h_t", "hc", "hn", "hx", "memory", "mems", "past",
    "past_key_values", "prev", "prev_h", "recurrent", "s",
}  # fmt: skip
_CELLS = (
    "c",
    "c0",
    "c_0",
    "c_in",
    "c_n",
    "c_prev",
    "c_t",
    "cn",
    "cx",
    "cell",
    "cell_state",
    "cells",
    "prev_c",
)  # handed in beside the hidden state
_VOCABULARIES = (
    "vocabulary_size", "vocab_size", "vocab_sz", "n_vocab", "num_vocab", "ntoken", "ntokens", "num_tokens", "n_tokens",
    "num_embeddings",
)  # fmt: skip
_IN_VARARGS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ModelRaisedError(Exception):
    """What somebody's model raised, with the sizes at which it did."""


class NoStateError(Exception):
    """A call that returned outputs alone; what came back, in words."""


@dataclass(frozen=True)
class Signature:
    """What `forward` takes.

    Attributes:
        inputs: The name of its first argument.
        state: The name of the state's; empty where it takes none.
        may_omit: Whether the state may be left out.
        is_sure: Whether that argument is called as states are.
        cell: The name of a further argument for the cells: the state is then the pair of both.
        is_open: Whether it takes any arguments, so that their names say nothing.
    """

    inputs: str = "inputs"
    state: str = ""
    may_omit: bool = False
    is_sure: bool = False
    cell: str = ""
    is_open: bool = False


def signature_of(model: Any) -> Signature:
    """Which argument of `forward` is the state.

    >>> signature_of(nn.LSTM(2, 3))
    Signature(inputs='input', state='hx', may_omit=True, is_sure=True, cell='', is_open=False)

    Raises:
        RuleError: If it needs more than inputs and a state.
    """
    try:
        found = list(inspect.signature(getattr(model, "forward", model)).parameters.values())
    except (TypeError, ValueError):
        return Signature(is_open=True)
    named = [parameter for parameter in found if parameter.kind not in _IN_VARARGS]
    if not named or (len(named) == 1 and any(parameter.kind == _IN_VARARGS[0] for parameter in found)):
        return Signature(named[0].name if named else "inputs", is_open=bool(set(found) - set(named)))
    first, *others = named
    state = next((parameter for parameter in others if _could_be_state(parameter)), None)
    cell = next((parameter for parameter in others if state and parameter.name.lower() in _CELLS), None)
    required = [parameter for parameter in others if parameter.default is inspect.Parameter.empty]
    if state is None and required:
        state = required[0]
    if state is None and others and others[0].default is None and not _is_called_otherwise(others[0].name):
        state = others[0]
    if missing := [parameter.name for parameter in required if parameter not in (state, cell)]:
        names = ", ".join("state" if parameter is state else parameter.name for parameter in others)
        rule = f"$call must say what else forward takes, and {type(model).__name__} needs {plain(', '.join(missing))}"
        way_out = f"write `call=lambda model, {first.name}, state: model({first.name}, {plain(names)})`"
        raise RuleError("call", rule, way_out=way_out)
    if state is None:
        return Signature(first.name)
    may_omit = state.default is not inspect.Parameter.empty
    is_sure = not may_omit or _could_be_state(state)
    return Signature(first.name, state.name, may_omit, is_sure, "" if cell is None or cell is state else cell.name)


@dataclass(frozen=True)
class Call:
    """How a model is called.

    Attributes:
        run: (model, inputs, state) -> whatever comes back; what it raises is the model's.
        part: What came back -> (outputs, state). It raises `NoStateError` where there are outputs alone.
    """

    run: Callable[[Any, Any, Any], Any]
    part: Callable[[Any], tuple[Any, Any]]


def call_of(model: Any, signature: Signature, fresh: Any) -> Call:
    """How this model is called.

    Args:
        model: The model.
        signature: Of its `forward`.
        fresh: A first state of its own, by which the state is known among the results; None where there is none.
    """
    if isinstance(model, nn.RNNCellBase):
        return Call(lambda model, inputs, state: model(inputs, state), _part_cell)

    def run(model: Any, inputs: Any, state: Any) -> Any:
        if signature.is_open:
            return model(inputs) if state is None else model(inputs, state)
        if not signature.state or (state is None and signature.may_omit):
            return model(inputs)
        if signature.cell:
            hidden, cell = (None, None) if state is None else state
            return model(inputs, **{signature.state: hidden, signature.cell: cell})
        return _with_keyword(model, inputs, signature.state, state)

    return Call(run, lambda result: _parted(result, fresh, is_pair=bool(signature.cell)))


def call_alone() -> Call:
    """How a model is called that keeps its state itself: all that comes back are outputs."""
    return Call(lambda model, inputs, state: model(inputs), _outputs_alone)


def users_call(call: Callable[[Any, Any, Any], Any], *, is_held: bool) -> Call:
    """A user's `call`; where the module holds the state, all that comes back are outputs."""
    return Call(call, _outputs_alone if is_held else _part_pair)


def first_module(model: Any, kinds: type | tuple[type, ...]) -> tuple[str, Any]:
    """The first part of one of these kinds, with its dotted name; nothing where there is none."""
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    return next(((name or "the model", part) for name, part in parts if isinstance(part, kinds)), ("", None))


def vocabulary_of(model: Any) -> tuple[int | None, str]:
    """How many symbols a model reads, and where that stands."""
    name, embedding = first_module(model, nn.Embedding)
    if embedding is not None:
        return embedding.num_embeddings, f"the rows of `{name}`"
    for attribute in _VOCABULARIES:
        number = getattr(model, attribute, None)
        if isinstance(number, int) and number >= 2:
            return number, f"`{attribute}`"
    return None, ""


def in_one_line(error: BaseException) -> str:
    """An exception's type and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _with_keyword(model: Any, inputs: Any, name: str, state: Any) -> Any:
    kind = inspect.signature(getattr(model, "forward", model)).parameters[name].kind
    if kind == inspect.Parameter.POSITIONAL_ONLY or not isinstance(model, nn.Module):
        return model(inputs, state)
    return model(inputs, **{name: state})


def _part_cell(state: Any) -> tuple[Any, Any]:
    """A cell's state is its output."""
    return (state[0] if isinstance(state, tuple) else state), state


def _outputs_alone(result: Any) -> tuple[Any, Any]:
    if result is None:
        raise _no_outputs(result)
    return result, None


def _part_pair(result: Any) -> tuple[Any, Any]:
    if isinstance(result, Tensor):
        raise NoStateError("outputs alone")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise _no_outputs(result)
    if result[1] is None:
        raise NoStateError("None as its state")
    return result[0], result[1]


def _parted(result: Any, fresh: Any, *, is_pair: bool) -> tuple[Any, Any]:
    """Outputs and state, out of whatever a model returns; `is_pair`: hidden state and cells may come back singly."""
    if result is None:
        raise _no_outputs(result)
    if is_dataclass(result) and not isinstance(result, (dict, type)):
        result = {field.name: getattr(result, field.name) for field in fields(result)}
    if isinstance(result, dict):
        return _parted_dict(result, fresh)
    if isinstance(result, PackedSequence) or not isinstance(result, (tuple, list)) or len(result) < 2:
        raise NoStateError("outputs alone")
    outputs, *rest = result
    alike = [part for part in rest if is_like(part, fresh)] if fresh is not None else []
    if is_pair and len(rest) >= 2 and all(isinstance(part, Tensor) for part in rest[:2]):
        return outputs, (rest[0], rest[1])
    if alike:
        return outputs, alike[0]
    if isinstance(fresh, (tuple, list)) and is_like(tuple(rest), tuple(fresh)):
        return outputs, type(fresh)(rest)
    return outputs, rest[0]


def _parted_dict(result: dict[Any, Any], fresh: Any) -> tuple[Any, Any]:
    alike = [key for key, part in result.items() if fresh is not None and is_like(part, fresh)]
    named = [key for key in result if _is_called_state(str(key))]
    keys = [key for key in named if key in alike] or named or alike[1:]
    if not keys:
        raise NoStateError(f"{', '.join(map(str, result))}, of which none is called as states are,")
    return {key: part for key, part in result.items() if key != keys[0]}, result[keys[0]]


def _is_called_state(name: str) -> bool:
    name = name.lower()
    return name in _STATES or "state" in name or "hidden" in name or name.startswith(("carry", "memor", "cache"))


def _could_be_state(parameter: inspect.Parameter) -> bool:
    is_flag = isinstance(parameter.default, (bool, int, float, str))
    return not is_flag and _is_called_state(parameter.name) and not _is_called_otherwise(parameter.name)


def _is_called_otherwise(name: str) -> bool:
    words = ("mask", "len", "target", "label", "return", "embed", "pos", "weight", "temperature")
    return any(word in name.lower() for word in words)


def _no_outputs(result: Any) -> RuleError:
    got = "None" if result is None else type(result).__name__
    return RuleError(
        "call",
        "$call must return (outputs, state), or outputs alone where the module keeps its state",
        f"{got} of {len(result)}" if isinstance(result, (tuple, list, dict)) else got,
        way_out="write `call=lambda model, inputs, state: model(inputs, state)` with what this model takes and gives",
    )
