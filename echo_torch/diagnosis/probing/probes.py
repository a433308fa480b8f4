"""Does a model's state do what a state must? Found by changing one input, without any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echo_torch.diagnosis.probing.bench import Bench
from echo_torch.diagnosis.probing.calling import ModelRaisedError
from echo_torch.diagnosis.probing.checks import Checks
from echo_torch.diagnosis.probing.findings import Findings
from echo_torch.diagnosis.probing.keeping import model_kept, one_thread
from echo_torch.diagnosis.probing.outputs import tensors_in
from echo_torch.diagnosis.probing.states import HandedState, num_features
from echo_torch.diagnosis.probing.understanding import Asked, Understood, understand
from echo_torch.errors import RuleError, plain, shorten
from echo_torch.models.state import StateForm, detach_state, leaves_of, reset_state
from echo_torch.randomness import seeded

FAULTS = {
    "random": "two equal readings differ in eval mode: something is drawn at every call, such as a dropout that is "
    "always on; the other checks are made with the generators set to the same seed",
    "rows are mixed": "within a chunk, changing one lane's input moves another lane's outputs: lanes and steps are "
    "swapped somewhere (batch_first?), or something is averaged over the batch",
    "time runs backwards": "changing an input moves outputs of earlier steps",
    "state is not carried": "changing what a lane read moves nothing in its next chunk: the state is reset at every "
    "batch, or dropped",
    "lanes are mixed": "changing one lane's input moves another lane's outputs in the next chunk: the state is "
    "transposed, rolled or averaged over the batch",
    "reset is incomplete": "a lane that was reset still depends on what it read before: does the mask stand on the "
    "lanes' axis, and is every field reset?",
    "reset hits others": "resetting one lane changes another lane's outputs: does the mask stand on the lanes' axis?",
    "gradient crosses the cut": "the loss of a chunk has a gradient in the chunk before: the state is not detached",
    "chunks differ from the whole": "two chunks, one after another, give other outputs than the same steps as one: "
    "fields are exchanged, scaled or dropped when the state is handed on",
    "failed": "the model cannot be read",
}
_EVAL = "mode: eval, whatever the modes of the modules are; they are put back"
_SMALL = (4, 4)  # as many lanes as steps: there a wrong batch_first raises no error
_MOST_NUMBERS = 4_000_000  # in the outputs of one chunk
_MOST_PRODUCTS = 1_000_000_000  # weights times lanes
_MOST_WIDTHS = 3
_MOST_STEPS = 32  # of which there are as many lanes


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        faults: Names out of `FAULTS`, empty where all is well.
        influence: bool (probed lanes, lanes): whether changing the last input that a probed lane read moves each
            lane's outputs in the next chunk. Right is true for the lane itself and false elsewhere.
        probed_lanes: The lanes whose inputs were changed.
        gradient_crosses: Whether the next chunk's loss has a gradient in the chunk before.
        error: What the model raised, if it did.
        took: What the probe took to be so where it was not told, in sentences.
        unknown: What it could not look at, and why.
    """

    faults: tuple[str, ...]
    influence: Tensor
    probed_lanes: tuple[int, ...]
    gradient_crosses: bool
    error: str = ""
    took: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The faults for people, then what was not looked at."""
        faults = [f"{name}: {FAULTS[name]}" + (f" ({self.error})" if name == "failed" else "") for name in self.faults]
        return faults + [f"not looked at: {text}" for text in self.unknown]


def hand_over(state: Any, starts: Tensor, initial_state: Callable[[int], Any] | None = None) -> Any:
    """What a training does between two chunks: detach, then reset the lanes that start, as `reset_state` does."""
    return reset_state(detach_state(state), starts, initial_state)


def probe(
    model: Any,
    vocabulary_size: int | None = None,
    *,
    inputs: Any = None,
    call: Callable[[Any, Any, Any], Any] | None = None,
    state: Callable[[int], Any] | str | None = None,
    carry: Callable[[Any, Tensor], Any] | None = None,
    num_lanes: int | None = None,
    num_steps: int | None = None,
    device: torch.device | str | None = None,
) -> Probe:
    """Change one input at a time and see what moves.

    Two chunks are read in eval mode, the state of the first handed to the second. The default sizes are those at which
    a mask or an axis in the wrong place raises no error: as many lanes as the state has features, and as many steps
    as lanes. One thread reads, because the sizes are small. The model, all random states and the number of threads are
    afterwards as they were.

    >>> from echo_torch import EchoLSTM
    >>> probe(EchoLSTM(10, 4)).faults
    ()
    >>> probe(EchoLSTM(10, 4), 10, carry=lambda state, starts: state).lines()[-1][:24]
    'gradient crosses the cut'
    >>> probe(torch.nn.GRU(3, 4)).took[1]
    'inputs: floats, 3 for each step, as `the model` reads them, (steps, lanes), as `the model` is not batch_first'

    Args:
        model: A recurrent model: its `forward` takes a state and returns it, or it keeps its state itself.
        vocabulary_size: Symbols 0..n-1 are drawn, at least 2; None: as the first embedding or an attribute says, and
            floats as the first recurrent layer reads them where there is neither.
        inputs: (lanes, steps) -> what the model reads, a tensor or any nesting of tuples, lists and dicts; or a batch
            like it, lanes first, steps first where the first recurrent layer is not batch_first. Where the model
            raises, the first part of the batch and the other order are tried. Resets inside a chunk hide the chunk
            before, so make masks and `done` such that there is none.
        call: (model, inputs, state) -> (outputs, state), or outputs alone where the module keeps its state.
        state: number of lanes -> the first state; or the dotted name of the attribute in which the module keeps it.
            None: `model.initial_state`, `model.init_hidden`, or as the model begins without one.
        carry: (state, starts bool (lanes,)) -> the state for the next chunk, as the training does it; None as a
            result: it was set on the module. Not given: detached and reset, as `EchoModule` and `Carry` do it; with a
            state on the module nothing is done between chunks.
        num_lanes: Rows, at least 2; None: as above.
        num_steps: Columns; None: as above.
        device: Where the inputs go; None: where the model is.

    Returns:
        The faults found, which lanes moved, what was taken, and what could not be looked at.

    Raises:
        RuleError: If a number is too small to tell anything, or it cannot be worked out how the model is read.
    """
    _check(model, vocabulary_size, num_lanes, num_steps)
    _check_functions(call, state, carry)
    model = _module_of(model)
    asked = Asked(vocabulary_size, inputs, call, state, carry, device)
    sizes = [(3, 5), (num_lanes or _SMALL[0], num_steps or _SMALL[1]), _SMALL]
    with torch.inference_mode(False), one_thread(), seeded(0), model_kept(model) as kept:
        took = [_EVAL if kept.modules else "mode: as it is, because no module was found behind `model`"]
        try:
            with torch.no_grad():
                understood = understand(model, kept, asked, sizes)
                num_lanes = understood.sizes[0] if understood.is_fixed else num_lanes
                num_steps = understood.sizes[1] if understood.has_fixed_steps else num_steps
                benches, unknown = _sizes_of(model, understood, num_lanes, num_steps)
        except ModelRaisedError as error:
            return _failed(str(error), took)
        took += understood.took
        took.append("benches: " + ", ".join(f"{lanes} lanes x {steps} steps" for lanes, steps in benches))
        found: list[Findings] = []
        errors: list[str] = []
        for lanes, steps in benches:
            try:
                found.append(Checks(Bench(understood, lanes, steps)).look(is_brief=bool(found)))
            except ModelRaisedError as error:
                errors.append(str(error))
            if found and found[0].is_hopeless:
                break
    return _merged(found, errors, took, unknown)


def _module_of(model: Any) -> Any:
    """The module whose `forward` this is; else what it is."""
    owner = getattr(model, "__self__", None)
    return owner if isinstance(owner, nn.Module) and getattr(model, "__name__", "") == "forward" else model


def _check(model: Any, vocabulary_size: int | None, num_lanes: int | None, num_steps: int | None) -> None:
    if not callable(model) or isinstance(model, type):
        rule = "$model must be a model that can be called"
        got = f"the class {model.__name__}" if isinstance(model, type) else repr(model)[:40]
        raise RuleError("model", rule, plain(got), way_out="give an object, such as `torch.nn.GRU(3, 4)`")
    for name, value in {"vocabulary_size": vocabulary_size, "num_lanes": num_lanes, "num_steps": num_steps}.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise RuleError(name, f"${name} must be a whole number", plain(repr(value)))
    if vocabulary_size is not None and vocabulary_size < 2:
        raise RuleError(
            "vocabulary_size", "$vocabulary_size must be at least 2, or no symbol can be changed", vocabulary_size
        )
    if num_lanes is not None and num_lanes < 2:
        raise RuleError("num_lanes", "$num_lanes must be at least 2, or there is no other lane to touch", num_lanes)
    if num_steps is not None and num_steps < 1:
        raise RuleError("num_steps", "$num_steps must be at least 1", num_steps)


def _check_functions(call: Any, state: Any, carry: Any) -> None:
    kinds = {
        "call": (call, "(model, inputs, state) -> (outputs, state)"),
        "state": (state, "number of lanes -> the first state, or the name of an attribute"),
        "carry": (carry, "(state, starts) -> state"),
    }
    for name, (value, kind) in kinds.items():
        if value is None or callable(value) or (name == "state" and isinstance(value, str)):
            continue
        way_out = "write `state=lambda lanes: torch.zeros(1, lanes, 64)`, with its shapes" if name == "state" else ""
        raise RuleError(name, f"${name} must be a function {kind}", plain(shorten(value)), way_out=way_out)


def _sizes_of(
    model: Any, understood: Understood, num_lanes: int | None, num_steps: int | None
) -> tuple[list[tuple[int, int]], list[str]]:
    """(lanes, steps) of each bench, and which would cost too much."""
    if num_lanes is not None:
        return [(num_lanes, num_steps or (min(num_lanes, _MOST_STEPS) if understood.is_fixed else num_lanes))], []
    steps = num_steps or 2
    wanted = sorted({max(3, width) for width in _widths_of(understood)})
    benches: list[tuple[int, int]] = []
    unknown = []
    for width in wanted:
        if len(benches) == _MOST_WIDTHS or not _is_cheap(model, understood, width, steps):
            unknown.append(
                f"a state transposed, or a mask over its features, with {width} lanes: it would take long; give "
                f"`num_lanes={width}, num_steps=2`"
            )
        else:
            benches.append((width, steps))
    small = _SMALL if num_steps is None else (min(max(3, num_steps), _MOST_STEPS), num_steps)
    benches.insert(0, small)  # it looks at all, the others at what is silent there alone
    return list(dict.fromkeys(benches)), unknown


def _widths_of(understood: Understood) -> list[int]:
    """How many features each tensor of the state has."""
    place = understood.reader.place
    form = place.form if isinstance(place, HandedState) else StateForm(lambda lanes: _left(understood, lanes))
    try:
        return num_features(form.fresh(2), form.lane_axes)
    except (RuleError, ModelRaisedError):
        return []


def _left(understood: Understood, num_lanes: int) -> Any:
    reader, chunk = understood.reader, understood.inputs.make(num_lanes, understood.sizes[1])
    reader.again()
    return reader.step(chunk, reader.begin(num_lanes), understood.inputs.in_words(chunk))[1]


def _is_cheap(model: Any, understood: Understood, num_lanes: int, num_steps: int) -> bool:
    """Whether a bench of so many lanes takes seconds, and not minutes or all of the memory."""
    parameters = getattr(model, "parameters", tuple)
    weights = sum(weight.numel() for weight in parameters())
    reader, (lanes, steps) = understood.reader, understood.sizes
    chunk = understood.inputs.make(lanes, steps)
    reader.again()
    outputs, state = reader.step(chunk, reader.begin(lanes), understood.inputs.in_words(chunk))
    numbers = sum(tensor.numel() for tensor in [*tensors_in(outputs), *_tensors_of(state)])
    return numbers / lanes / steps * num_lanes * num_steps <= _MOST_NUMBERS and weights * num_lanes <= _MOST_PRODUCTS


def _tensors_of(state: Any) -> list[Tensor]:
    try:
        return [leaf for leaf in leaves_of(state) if isinstance(leaf, Tensor)]
    except RuleError:
        return []


def _failed(error: str, took: list[str]) -> Probe:
    return Probe(("failed",), torch.zeros(0, 0, dtype=torch.bool), (), False, error, tuple(took))


def _merged(found: list[Findings], errors: list[str], took: list[str], unknown: list[str]) -> Probe:
    """One probe of several benches. A bench that raises is explained by the fault that another one names."""
    named = {name for findings in found for name in findings.faults}
    explained = named - {"random"}
    if errors and not explained:
        named.add("failed")
    if explained - {"chunks differ from the whole"}:
        named.discard("chunks differ from the whole")
    if not found:
        return _failed(errors[0], took)
    shown = next((findings for findings in found if findings.found.get("lanes are mixed")), found[-1])
    said = {text.split(":")[0]: text for findings in reversed(found) for text in findings.unknown}
    unknown = [*dict.fromkeys(reversed(said.values())), *unknown]
    faults = tuple(name for name in FAULTS if name in named)
    crosses = "gradient crosses the cut" in named
    error = errors[0] if "failed" in named else ""
    return Probe(faults, shown.influence, shown.lanes, crosses, error, tuple(took), tuple(unknown))
