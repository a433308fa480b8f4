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
    signature_of,
    users_call,
)
from echo_torch.diagnosis.probing.candidates import Candidate, candidates_of
from echo_torch.diagnosis.probing.inputs import Inputs
from echo_torch.diagnosis.probing.keeping import FUNCTIONS, ModelKept
from echo_torch.diagnosis.probing.outputs import OutputForm, differs, flattened_order, form_by_sizes, tensors_in
from echo_torch.diagnosis.probing.reading import Reader, left_by
from echo_torch.diagnosis.probing.states import HandedState, HeldState, fresh_of
from echo_torch.errors import RuleError, plain
from echo_torch.models.state import leaves_of

_EXAMPLE_STEPS, _EXAMPLE = (3, 0), (0, 0)  # sizes of the example, where there is 0
_ANY_LANES = (nn.RNNBase, nn.RNNCellBase)


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
        has_fixed_steps: Whether it reads no other number of steps than the example has, as far as was tried.
        took: What was taken, in sentences.
    """

    reader: Reader
    inputs: Inputs
    form: OutputForm | None
    sizes: tuple[int, int]
    is_fixed: bool
    has_fixed_steps: bool = False
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
    candidates, error = candidates_of(model, asked.inputs, asked.vocabulary_size, asked.device), None
    own_sizes = [(size, 5) for size in kept.sizes() if size not in (lanes for lanes, _ in sizes)]
    for wanted in [*sizes, *own_sizes, _EXAMPLE_STEPS, _EXAMPLE]:
        for candidate in candidates:
            tried = _sizes_at(wanted, candidate)
            if tried is None:
                continue
            try:
                reader, state_words = _reader_of(model, kept, asked, signature, candidate.inputs, tried)
            except ModelRaisedError as found:
                error = error or found
                continue
            form = _form_of(reader, candidate.inputs)
            is_fixed = wanted in own_sizes or wanted == _EXAMPLE
            has_fixed_steps = wanted in (_EXAMPLE_STEPS, _EXAMPLE)
            took = [candidate.words, state_words, *([] if form is None else [form.in_words()])]
            took += (
                [f"lanes: {tried[0]}, as something on the module has, because 3 and 4 raise"]
                if wanted in own_sizes
                else []
            )
            took += [f"steps: {tried[1]}, as the example has, because 4 and 5 raise"] if has_fixed_steps else []
            return Understood(reader, candidate.inputs, form, tried, is_fixed, has_fixed_steps, took)
    raise ModelRaisedError(_why_unread(model, asked, signature, candidates, error))


def _sizes_at(wanted: tuple[int, int], candidate: Candidate) -> tuple[int, int] | None:
    """(lanes, steps) at which these inputs are tried; None where they are like no example that says them."""
    if 0 not in wanted:
        return wanted[0], wanted[1] if candidate.inputs.has_steps else 1
    if candidate.sizes is None or candidate.sizes[0] < 2:
        return None
    return wanted[0] or candidate.sizes[0], candidate.sizes[1]


def _why_unread(
    model: Any, asked: Asked, signature: Signature, candidates: list[Candidate], error: ModelRaisedError | None
) -> str:
    """What was tried, and what may be given."""
    tried = " or ".join(one.words.removeprefix("inputs: ").split(", because")[0] for one in candidates)
    ways = ["`inputs` or `call` if it reads others"]
    if signature.state and not signature.may_omit and asked.state is None and fresh_of(model)[0] is None:
        ways.append(f"`state=lambda lanes: ...` if `{signature.state}` must not be None")
    if not isinstance(model, _ANY_LANES):
        ways.append("`num_lanes` and `num_steps` if it reads no others")
    return f"{error}; inputs that were tried: {tried}; give {', '.join(ways)}"


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
    place = HandedState(fresh, left_by(lambda: readers[0], inputs, sizes[1]))
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
    except NoStateError as error:
        names = kept.changed()
        if not names:
            raise _no_state(model, kept, asked, signature, str(error)) from None
        return _holding(model, kept, asked, names, chunk, inputs, sizes[0])
    if not signature.is_open and not signature.is_sure and (first is None or not signature.state):
        names = kept.changed()  # it returns several outputs, and its state is its own
        if names:
            return _holding(model, kept, asked, names, chunk, inputs, sizes[0])
        if not signature.state:
            raise _no_state(model, kept, asked, signature, "results of which none is handed in,")
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


def _no_state(model: Any, kept: ModelKept, asked: Asked, signature: Signature, returned: str) -> RuleError:
    name, said = type(model).__name__, f"gives {returned} and changes no attribute of its own in eval mode"
    rule = f"$model must hand a state on, and {plain(name)} {plain(said)}"
    if objects := kept.replaced():
        rule += f", in which tensors are seen: {plain(', '.join(objects))} holds an object of another kind"
        way_out = "keep the tensors in a tuple or a dict, or give a $call that returns (outputs, state)"
    elif isinstance(model, FUNCTIONS) and asked.call is None:
        way_out = "give the module itself, whose attributes are seen, or a function that returns (outputs, state)"
    elif asked.call is not None:
        way_out = (
            "give a $call that returns the state too, such as `call=lambda model, inputs, state: (outputs, state)`"
        )
    elif signature.state or signature.is_open:
        handed = f"{signature.state}=state" if signature.state else "state"
        line = f"call=lambda model, {signature.inputs}, state: model({signature.inputs}, {handed})"
        way_out = f"give a $call that returns (outputs, state), such as `{line}`, or its attribute as $state"
    else:
        way_out = "let `forward` take the state and return it, or give a $call that does, or its attribute as $state"
    return RuleError("model", rule, way_out=way_out)
