"""What can be worked out about anyone's model: what it reads, how it is called, where its state and its outputs are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from echo_torch.diagnosis.probing.calling import (
    ModelRaisedError,
    NoStateError,
    Signature,
    call_alone,
    call_of,
    first_module,
    signature_of,
    users_call,
    vocabulary_of,
)
from echo_torch.diagnosis.probing.inputs import EXAMPLE, Inputs, like_example
from echo_torch.diagnosis.probing.keeping import ModelKept
from echo_torch.diagnosis.probing.outputs import OutputForm, differs, flattened_order, form_by_sizes, tensors_in
from echo_torch.diagnosis.probing.reading import Reader, left_by
from echo_torch.diagnosis.probing.states import HandedState, HeldState, fresh_of
from echo_torch.errors import RuleError, plain
from echo_torch.models.state import leaves_of

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass
class Asked:
    """What the user of the probe gave, None where it is to be worked out; as of `probe`."""

    vocabulary_size: int | None = None
    inputs: Any = None
    call: Callable[[Any, Any, Any], Any] | None = None
    state: Callable[[int], Any] | str | None = None
    carry: Callable[[Any, Tensor], Any] | None = None
    device: torch.device | str | None = None


@dataclass
class Understood:
    """A model as the probe reads it.

    Attributes:
        reader: It at work.
        inputs: What it reads.
        form: Where lanes and steps stand in its outputs; None: to be told by the sizes of each bench.
        sizes: (lanes, steps) at which it was tried.
        is_fixed: Whether it reads no other number of lanes, as far as was tried.
        took: What was taken, in sentences.
    """

    reader: Reader
    inputs: Inputs
    form: OutputForm | None
    sizes: tuple[int, int]
    is_fixed: bool
    took: list[str] = field(default_factory=list)


def understand(model: Any, kept: ModelKept, asked: Asked, sizes: list[tuple[int, int]]) -> Understood:
    """Find out how a model is read, by reading a little.

    Args:
        model: The model.
        kept: What it held before.
        asked: What is given.
        sizes: (lanes, steps) at which it is tried, one after another.

    Raises:
        ModelRaisedError: If it raises whatever is tried.
        RuleError: If it makes no sense of the model, or of an argument.
    """
    signature = Signature(is_open=True) if asked.call is not None else signature_of(model)
    candidates, error = _inputs_of(model, asked), None
    own_sizes = [(size, 5) for size in kept.sizes() if size not in (lanes for lanes, _ in sizes)]
    for num_lanes, num_steps in [*sizes, *own_sizes]:
        for inputs, words in candidates:
            tried = (num_lanes, num_steps if inputs.has_steps else 1)
            try:
                reader, state_words = _reader_of(model, kept, asked, signature, inputs, tried)
            except ModelRaisedError as found:
                error = error or found
                continue
            form = _form_of(reader, inputs)
            is_fixed = (num_lanes, num_steps) in own_sizes
            took = [words, state_words, *([] if form is None else [form.in_words()])]
            took += [f"lanes: {num_lanes}, as something on the module has, because 3 and 4 raise"] if is_fixed else []
            return Understood(reader, inputs, form, tried, is_fixed, took)
    tried_words = " or ".join(words.removeprefix("inputs: ").split(", because")[0] for _, words in candidates)
    raise ModelRaisedError(
        f"{error}; inputs that were tried: {tried_words}; give `inputs` or `call` if it reads others"
    )


def _inputs_of(model: Any, asked: Asked) -> list[tuple[Inputs, str]]:
    """The inputs that are tried, the likeliest first, each with a sentence."""
    name, layer = first_module(model, _RECURRENT)
    is_time_first = layer is not None and not getattr(layer, "batch_first", True)
    is_time_first &= not callable(getattr(model, "initial_state", None))  # whose inputs are (lanes, steps)
    why = f", as `{name}` is not batch_first" if is_time_first else ""
    device = _device_of(model) if asked.device is None else asked.device
    size = asked.vocabulary_size
    if callable(asked.inputs) and not isinstance(asked.inputs, nn.Module):
        return [(Inputs(asked.inputs, device, size), "inputs: as `inputs` makes them")]
    if asked.inputs is not None:
        make = like_example(asked.inputs, is_time_first=is_time_first)
        order = "steps first" + why if is_time_first else "lanes first"
        return [
            (Inputs(make, device, size), f"inputs: drawn between the least and the greatest of the example, {order}")
        ]
    if isinstance(layer, nn.RNNCellBase) and layer is model:
        make = _floats(layer.input_size, _dtype_of(model), False)
        return [
            (Inputs(lambda lanes, steps: make(lanes, 1)[:, 0], device), f"inputs: floats (lanes, {layer.input_size})")
        ]
    found = []
    for steps_first in (True, False) if is_time_first else (False, True):
        order = f"(steps, lanes){why}" if steps_first else "(lanes, steps)"
        if steps_first != is_time_first:
            order += ", because the model raises at the other order"
        found.append((steps_first, order))
    if callable(getattr(model, "initial_state", None)):
        found = found[:1]
    return [_made_inputs(model, size, device, *one) for one in found]


def _made_inputs(
    model: Any, vocabulary_size: int | None, device: torch.device | str, steps_first: bool, order: str
) -> tuple[Inputs, str]:
    number, where = (vocabulary_size, "`vocabulary_size`") if vocabulary_size is not None else vocabulary_of(model)
    if number is not None:
        return Inputs(
            _integers(number, steps_first), device, number
        ), f"inputs: integers below {number}, {where}, {order}"
    name, layer = first_module(model, _RECURRENT)
    if layer is None:
        rule = "$inputs must say what the model reads: it has no embedding and no recurrent layer that would tell"
        raise RuleError(
            "inputs", rule, type(model).__name__, way_out=f"give $vocabulary_size for symbols, else {EXAMPLE}"
        )
    make = _floats(layer.input_size, _dtype_of(model), steps_first)
    return Inputs(make, device), f"inputs: floats, {layer.input_size} for each step, as `{name}` reads them, {order}"


def _reader_of(
    model: Any, kept: ModelKept, asked: Asked, signature: Signature, inputs: Inputs, sizes: tuple[int, int]
) -> tuple[Reader, str]:
    """The model at work, tried once, with a sentence on its state."""
    chunk = inputs.make(*sizes)
    if isinstance(asked.state, str):
        return _holding(model, kept, asked, [asked.state], chunk, inputs, sizes[0], is_found=False)
    fresh, name = (asked.state, "`state`") if asked.state is not None else fresh_of(model)
    name = f"`{name}`" if name and asked.state is None else name
    readers: list[Reader] = []
    place = HandedState(fresh, left_by(lambda: readers[0], inputs))
    if asked.state is not None and not signature.state and not signature.is_open:
        rule = f"$call must say where the state goes, because forward of {plain(type(model).__name__)} takes none"
        line = f"call=lambda model, {signature.inputs}, state: ..."
        raise RuleError("call", rule, way_out=f"write `{line}`, or give $state as the name of an attribute")
    first = None if fresh is None else Reader(model, kept, call_alone(), place, None).begin(sizes[0])
    call = call_of(model, signature, first) if asked.call is None else users_call(asked.call, is_held=False)
    reader = Reader(model, kept, call, place, asked.carry)
    readers.append(reader)
    reader.again()
    try:
        outputs, state = reader.step(chunk, reader.begin(sizes[0]), inputs.in_words(chunk))
    except NoStateError:
        names = kept.changed()
        if not names:
            raise _no_state(model, asked, signature) from None
        return _holding(model, kept, asked, names, chunk, inputs, sizes[0])
    if not signature.is_open and not signature.is_sure and (first is None or not signature.state):
        names = kept.changed()  # it returns several outputs, and its state is its own
        if names:
            return _holding(model, kept, asked, names, chunk, inputs, sizes[0])
        if not signature.state:
            raise _no_state(model, asked, signature)
    tensors_in(outputs)
    _check_state(state)
    taken = f"handed to `{signature.state}`" if signature.state else "handed in and out"
    return reader, f"state: {taken}, begun by {name or 'the model itself, without one'}"


def _holding(
    model: Any,
    kept: ModelKept,
    asked: Asked,
    names: list[str],
    chunk: Any,
    inputs: Inputs,
    num_lanes: int,
    *,
    is_found: bool = True,
) -> tuple[Reader, str]:
    """A reader of a module that keeps its state itself, tried once."""
    kept.restore()
    place = HeldState(model, names, is_found=is_found)
    call = call_alone() if asked.call is None else users_call(asked.call, is_held=True)
    reader = Reader(model, kept, call, place, asked.carry)
    for is_none in (True, False) if place.may_be_none else (False,):
        if place.may_be_none:
            place.begin_with_none(is_none)
        reader.again()
        try:
            outputs, _ = reader.step(chunk, reader.begin(num_lanes), inputs.in_words(chunk))
            break
        except ModelRaisedError:
            if not is_none:
                raise
    tensors_in(outputs)
    where = ", ".join(f"`{name}`" for name in names)
    return reader, f"state: kept by the module in {where}, begun by {place.how}"


def _form_of(reader: Reader, inputs: Inputs) -> OutputForm | None:
    """Where lanes and steps stand in the outputs; None where the model does not read other sizes."""

    def read(num_lanes: int, num_steps: int, changed: tuple[int, int] | None = None) -> list[Tensor]:
        reader.again()
        chunk = inputs.make(num_lanes, num_steps if inputs.has_steps else 1)
        chunk = chunk if changed is None else inputs.change(chunk, *changed)
        reader.again()
        outputs, _ = reader.step(chunk, reader.begin(num_lanes), inputs.in_words(chunk))
        return tensors_in(outputs)

    try:
        small = read(3, 5)
        form = form_by_sizes(small, read(4, 5), read(3, 7))
        if form.is_flattened:
            one, other = (
                tensors[form.place].movedim(form.lane_axis or 0, 0) for tensors in (small, read(3, 5, (0, -1)))
            )
            moved = differs(one, other).flatten(1).any(dim=1)
            form = flattened_order(form, moved, 3, is_time_first=inputs.is_time_first)
    except ModelRaisedError:
        return None
    return form


def _check_state(state: Any) -> None:
    try:
        leaves = leaves_of(state)
    except RuleError as error:
        got = error.got
    else:
        if any(isinstance(leaf, Tensor) for leaf in leaves):
            return
        got = repr(state)
    rule = "$call must return a state of tensors, or of tuples, lists and dicts of tensors"
    way_out = "write `call=lambda model, inputs, state: (outputs, {'hidden': ...})` with its tensors"
    raise RuleError("call", rule, plain(got), way_out=way_out)


def _no_state(model: Any, asked: Asked, signature: Signature) -> RuleError:
    name = type(model).__name__
    rule = f"$model must hand a state on, and {plain(name)} gives outputs alone and changes no attribute of its own"
    line = f"call=lambda model, {signature.inputs}, state: model({signature.inputs}, state)"
    where = "returns (outputs, state)" if asked.call is None else "returns the state too"
    return RuleError("model", rule, way_out=f"give a $call that {where}, such as `{line}`, or its attribute as $state")


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
