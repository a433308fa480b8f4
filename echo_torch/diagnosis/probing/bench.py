"""A model on the bench: two chunks of some lanes and steps, read again and again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from echo_torch.diagnosis.probing.outputs import OutputForm, form_by_shape, tensors_in
from echo_torch.diagnosis.probing.reading import Reader
from echo_torch.diagnosis.probing.states import HandedState
from echo_torch.diagnosis.probing.understanding import Understood
from echo_torch.errors import RuleError


class Bench:
    """A model and two chunks.

    Args:
        understood: The model as it is read.
        num_lanes: Rows.
        num_steps: Columns of each chunk.

    Raises:
        ModelRaisedError: If the model raises.
        RuleError: If what comes back makes no sense.
    """

    def __init__(self, understood: Understood, num_lanes: int, num_steps: int) -> None:
        self.reader: Reader = understood.reader
        self.inputs = understood.inputs
        self.num_lanes, self.num_steps = num_lanes, num_steps if understood.inputs.has_steps else 1
        self.reader.again()
        self.first, self.second = (self.inputs.make(num_lanes, self.num_steps) for _ in range(2))
        self.shapes = self.inputs.in_words(self.first)
        self._understood_form = understood.form
        with torch.no_grad():
            self._prepare()

    def _prepare(self) -> None:
        place = self.reader.place
        if isinstance(place, HandedState) and place.makes_its_own:
            place.form.fresh(self.num_lanes)  # read now, and not in the middle of another reading
        self.reader.again()
        tensors = tensors_in(self.reader.step(self.first, self.reader.begin(self.num_lanes), self.shapes)[0])
        sizes = (self.num_lanes, self.num_steps)
        self.form: OutputForm = self._understood_form or form_by_shape(
            tensors, *sizes, is_time_first=self.inputs.has_steps and self.inputs.is_time_first
        )
        kind = tensors[self.form.place]
        self.can_miss = not (kind.is_floating_point() or kind.is_complex())

    @property
    def may_forget(self) -> bool:
        """Whether all that is seen of the second chunk comes after many steps, when the first may be forgotten."""
        return self.form.step_axis is None and self.num_steps > 1

    def one_step(self) -> Any:
        """Inputs of a single step."""
        return self.inputs.make(self.num_lanes, 1)

    def read(self, *chunks: Any, starts: Tensor | None = None, is_seeded: bool = True) -> tuple[list[Tensor], Any]:
        """Outputs of chunks that are read one after another, (lanes, steps, rest) each, and the state after them."""
        self.reader.again(is_seeded=is_seeded)
        state = self.reader.begin(self.num_lanes)
        found, left = [], None
        for number, chunk in enumerate(chunks):
            if number:
                state = self.reader.hand_over(left, self.no_starts() if starts is None else starts)
            outputs, left = self.reader.step(chunk, state, self.inputs.in_words(chunk))
            found.append(self.arranged(outputs))
        return found, left

    def arranged(self, outputs: Any) -> Tensor:
        """Outputs as (lanes, steps, rest)."""
        try:
            return self.form.arrange(outputs, self.num_lanes).clone()
        except (IndexError, RuntimeError) as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(outputs))
            rule = "$call must return outputs of the same kind for any number of lanes and steps"
            got = f"shapes {shapes} at inputs of shape {self.shapes}"
            raise RuleError("call", rule, got, way_out="let it return the one tensor that the loss reads") from error

    def no_starts(self) -> Tensor:
        """No lane is reset."""
        return torch.zeros(self.num_lanes, dtype=torch.bool)

    def outputs(self, first: Any, second: Any, starts: Tensor | None = None) -> Tensor:
        """Outputs of the second of two chunks, (lanes, steps, rest)."""
        return self.read(first, second, starts=starts)[0][1]
