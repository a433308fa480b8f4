"""Which of a model's outputs are looked at, and where lanes and steps stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from echo_torch.errors import RuleError

_TOLERANCE = 1e-4  # of the spread of the outputs: how far two results may be apart by rounding
_ROUNDINGS = 16  # of the greatest output


@dataclass(frozen=True)
class OutputForm:
    """Which tensor of the outputs is looked at, and which of its axes counts what.

        at (3, 5)     at (4, 5)     at (3, 7)     lane axis    step axis
        (3, 5, 9)     (4, 5, 9)     (3, 7, 9)     0            1
        (3, 9)        (4, 9)        (3, 9)        0            none: many to one
        (15, 9)       (20, 9)       (21, 9)       0            0: flattened
        ()            ()            ()            none         none

    Attributes:
        place: Which of the tensors.
        lane_axis: None where the lanes cannot be told apart.
        step_axis: None where there is one output for all steps.
        is_steps_major: In flattened outputs: whether all lanes of a step stand together.
    """

    place: int = 0
    lane_axis: int | None = None
    step_axis: int | None = None
    is_steps_major: bool = True

    @property
    def is_flattened(self) -> bool:
        """Whether lanes and steps share an axis."""
        return self.lane_axis is not None and self.lane_axis == self.step_axis

    def in_words(self) -> str:
        """What is looked at, in a sentence."""
        if self.lane_axis is None:
            words = "without lanes"
        elif self.is_flattened:
            words = f"lanes and steps on axis {self.lane_axis}, {'steps' if self.is_steps_major else 'lanes'} outermost"
        elif self.step_axis is None:
            words = f"lanes on axis {self.lane_axis}, one for all steps"
        else:
            words = f"lanes on axis {self.lane_axis}, steps on axis {self.step_axis}"
        return f"outputs: tensor {self.place} of them, {words}"

    def arrange(self, outputs: Any, num_lanes: int) -> Tensor:
        """The outputs as (lanes, steps, rest); one step where steps are not told apart, one lane where lanes are not.

        Raises:
            RuleError: If the tensor is not there.
        """
        tensor = tensors_in(outputs)[self.place]
        if self.lane_axis is None:
            return tensor.reshape(1, 1, -1)
        tensor = tensor.movedim(self.lane_axis, 0)
        if self.is_flattened:
            parts = (-1, num_lanes) if self.is_steps_major else (num_lanes, -1)
            tensor = tensor.reshape(*parts, *tensor.shape[1:])
            tensor = tensor.transpose(0, 1) if self.is_steps_major else tensor
        elif self.step_axis is not None:
            tensor = tensor.movedim(self.step_axis + (self.step_axis < self.lane_axis), 1)
        else:
            tensor = tensor.unsqueeze(1)
        return tensor.reshape(*tensor.shape[:2], -1)


def tensors_in(outputs: Any) -> list[Tensor]:
    """All tensors of outputs of any nesting, packed sequences padded, in their order.

    Raises:
        RuleError: If there is none.
    """
    found: list[Tensor] = []
    _collect(outputs, found)
    if not found:
        rule = "$call must return outputs that are tensors, or nest some"
        way_out = "write `call=lambda model, inputs, state: (logits, state)` with the tensor that the loss reads"
        raise RuleError("call", rule, type(outputs).__name__, way_out=way_out)
    return found


def form_by_sizes(small: list[Tensor], wide: list[Tensor], long: list[Tensor]) -> OutputForm:
    """Where lanes and steps stand, by the outputs at (3, 5), (4, 5) and (3, 7) lanes and steps."""
    forms = [_axes_of(place, *three) for place, three in enumerate(zip(small, wide, long, strict=False))]
    with_lanes = [form for form in forms if form.lane_axis is not None]
    return _best(small, with_lanes or [form for form in forms if form.step_axis is not None])


def form_by_shape(tensors: list[Tensor], num_lanes: int, num_steps: int, *, is_time_first: bool) -> OutputForm:
    """The same where the model reads one size only: lanes and steps stand as in the inputs."""
    forms = []
    for place, tensor in enumerate(tensors):
        order = (num_steps, num_lanes) if is_time_first else (num_lanes, num_steps)
        if tensor.shape[:2] == order:
            forms.append(OutputForm(place, int(is_time_first), int(not is_time_first)))
        elif tensor.ndim and tensor.shape[0] == num_lanes * num_steps:
            forms.append(OutputForm(place, 0, 0, is_time_first))
        elif tensor.ndim and tensor.shape[0] == num_lanes:
            forms.append(OutputForm(place, 0))
    return _best(tensors, forms)


def flattened_order(form: OutputForm, moved: Tensor, num_lanes: int, *, is_time_first: bool) -> OutputForm:
    """In which order flattened outputs hold lanes and steps.

    Args:
        form: Of them.
        moved: bool (lanes * steps,): which rows the last step of lane 0 moves.
        num_lanes: How many lanes.
        is_time_first: How the inputs are; it is so in the outputs too where the rows that moved do not tell.
    """
    num_steps = len(moved) // num_lanes
    rows = moved.nonzero().flatten().tolist()
    if rows == [(num_steps - 1) * num_lanes]:
        return replace(form, is_steps_major=True)
    return replace(form, is_steps_major=rows != [num_steps - 1] and is_time_first)


def differs(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors differ; NaN is like NaN."""
    return (one != other) & ~(one.isnan() & other.isnan())


def is_near(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same but for rounding, by the spread of the second."""
    if one.shape != other.shape:
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return bool(torch.equal(one, other))
    scale = _scale_of(other)
    centred = other - other.nanmean() if other.is_floating_point() and other.numel() else other
    bound = max(_TOLERANCE * _scale_of(centred), _ROUNDINGS * torch.finfo(one.dtype).eps * scale)
    return not bool((differs(one, other) & ~((one - other).abs() <= bound)).any())


def _best(tensors: list[Tensor], forms: list[OutputForm]) -> OutputForm:
    """The first of floats with lanes, else the first with lanes, else the first tensor whole."""
    floats = [form for form in forms if _can_move(tensors[form.place])]
    return next(iter(floats or forms), OutputForm())


def _can_move(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _axes_of(place: int, small: Tensor, wide: Tensor, long: Tensor) -> OutputForm:
    if not small.ndim == wide.ndim == long.ndim:
        return OutputForm(place)
    lanes = [axis for axis in range(small.ndim) if small.shape[axis] != wide.shape[axis]]
    steps = [axis for axis in range(small.ndim) if small.shape[axis] != long.shape[axis]]
    if not lanes and len(steps) == 1 and (small.shape[steps[0]], long.shape[steps[0]]) == (5, 7):
        return OutputForm(place, None, steps[0])
    if len(lanes) != 1:
        return OutputForm(place)
    lane_axis = lanes[0]
    if steps == lanes:
        is_product = (small.shape[lane_axis], wide.shape[lane_axis], long.shape[lane_axis]) == (15, 20, 21)
        return OutputForm(place, lane_axis, lane_axis) if is_product else OutputForm(place)
    if (small.shape[lane_axis], wide.shape[lane_axis]) != (3, 4):
        return OutputForm(place)
    has_steps = len(steps) == 1 and (small.shape[steps[0]], long.shape[steps[0]]) == (5, 7)
    return OutputForm(place, lane_axis, steps[0] if has_steps else None)


def _collect(outputs: Any, found: list[Tensor]) -> None:
    if isinstance(outputs, Tensor):
        found.append(outputs)
    elif isinstance(outputs, PackedSequence):
        found.append(pad_packed_sequence(outputs, batch_first=True)[0])
    elif isinstance(outputs, Mapping):
        for part in outputs.values():
            _collect(part, found)
    elif isinstance(outputs, (tuple, list)):
        for part in outputs:
            _collect(part, found)
    elif is_dataclass(outputs):
        for field in fields(outputs):
            _collect(getattr(outputs, field.name), found)


def _scale_of(tensor: Tensor) -> float:
    """The greatest finite number in it, as it is."""
    finite = tensor[torch.isfinite(tensor)].abs()
    return float(finite.max()) if finite.numel() else 0.0
