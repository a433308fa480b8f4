"""What is looked at on a bench, and which faults it shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from echo_torch.diagnosis.probing.bench import Bench
from echo_torch.diagnosis.probing.calling import ModelRaisedError, in_one_line
from echo_torch.diagnosis.probing.findings import Findings
from echo_torch.diagnosis.probing.outputs import differs, is_near
from echo_torch.diagnosis.probing.reading import ResetUnknownError
from echo_torch.diagnosis.probing.states import HandedState, HeldState
from echo_torch.errors import RuleError
from echo_torch.models.state import leaves_of


class Checks:
    """The ways to shake a bench.

    Args:
        bench: A model and two chunks.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self._second, num_lanes = bench, bench.second, bench.num_lanes
        lanes = tuple(dict.fromkeys((0, num_lanes // 2, num_lanes - 1)))
        self._findings = Findings(lanes, torch.zeros(len(lanes), num_lanes, dtype=torch.bool))
        self._may_forget = False  # whether the second chunk shows too late what the first one left
        self._is_moved = True  # whether any input moves any output, as far as it is known
        self._own = torch.zeros_like(self._findings.influence)
        self._own[torch.arange(len(lanes)), list(lanes)] = True

    def look(self, *, is_brief: bool = False) -> Findings:
        """All that can be looked at with these sizes.

        Args:
            is_brief: Only what the next chunk and the reset show, because another bench has looked at the rest.

        Raises:
            ModelRaisedError: If the model raises.
            RuleError: If what comes back makes no sense.
        """
        with torch.no_grad():
            if not is_brief and self._is_random():
                return self._findings
            if self._bench.form.lane_axis is None:
                self._without_lanes()
            else:
                self._look_at_lanes(is_brief)
        if is_brief:
            return self._findings
        self._look_at_the_gradient()
        with torch.no_grad():
            self._look_at_the_whole()
        return self._findings

    def _is_random(self) -> bool:
        """Whether equal readings differ though the generators begin alike; then nothing else can be told."""
        self._bench.reader.again()
        free = [
            torch.stack(self._bench.read(self._bench.first, self._bench.second, is_seeded=False)[0]) for _ in range(2)
        ]
        again = [torch.stack(self._bench.read(self._bench.first, self._bench.second)[0]) for _ in range(2)]
        differs_seeded = bool(differs(*again).any())
        self._findings.found["random"] = differs_seeded or bool(differs(*free).any())
        if differs_seeded:
            self._say("all other checks: two equal readings differ though all generators begin at the same seed")
        return differs_seeded

    def _look_at_lanes(self, is_brief: bool) -> None:
        self._before = self._bench.outputs(self._bench.first, self._second)
        found = self._findings.found
        if not is_brief:
            found["rows are mixed"] = bool((self._move_within() & ~self._own).any())
        influence = self._findings.influence = self._move_across()
        if not is_brief:
            found["state is not carried"] = self._is_dropped(bool(influence.any(dim=1).all()))
        found["lanes are mixed"] = bool((influence & ~self._own).any())
        self._look_at_the_reset(self._findings.lanes[:: 2 if is_brief else 1])

    def _is_dropped(self, is_moved_later: bool) -> bool:
        """Whether the state is dropped; where the outputs could not show it, that is said instead."""
        if is_moved_later or (self._is_moved and not self._bench.can_miss and not self._may_forget):
            return not is_moved_later
        if self._bench.can_miss:
            why = "the outputs are whole numbers, and no change of the inputs moved them; let `call` return the logits"
        elif self._may_forget:
            why = f"the one output comes after {self._bench.num_steps} steps, and may have forgotten what was before; "
            why += "a chunk of one step raises, so give a smaller `num_steps`"
        else:
            why = (
                "no input moves the outputs, not even those of its own chunk; let `call` return what comes before them"
            )
        self._say(f"whether the state is carried: {why}")
        return False

    def _move_within(self) -> Tensor:
        """Which lanes an input of the same chunk moves; and whether it moves earlier steps."""
        middle, rows, is_backwards = self._bench.num_steps // 2, [], False
        self._is_moved = False
        for lane in self._findings.lanes:
            moved = differs(
                self._bench.outputs(self._bench.first, self._bench.inputs.change(self._bench.second, lane, middle)),
                self._before,
            )
            moved = moved.any(dim=2)
            rows.append(moved.any(dim=1).cpu())
            self._is_moved |= bool(moved.any())
            is_backwards |= bool(moved[lane, :middle].any())
        if self._bench.form.step_axis is not None and middle:
            self._findings.found["time runs backwards"] = is_backwards
        elif self._bench.form.step_axis is None:
            self._say("time that runs backwards: the outputs have no axis for the steps")
        return torch.stack(rows)

    def _move_across(self) -> Tensor:
        """Which lanes the chunk before moves, read with another second chunk where this one may have forgotten it."""
        influence = self._move_next()
        if bool((influence & self._own).any(dim=1).all()) or not self._bench.may_forget:
            return influence
        second = self._bench.one_step()
        try:
            self._before = self._bench.outputs(self._bench.first, second)
        except ModelRaisedError:  # it does not read so few steps
            self._may_forget = True
            return influence
        self._second = second
        changed = self._bench.outputs(self._bench.first, self._bench.inputs.change(second, 0))
        self._is_moved |= bool(differs(changed, self._before).any())
        return influence | self._move_next()

    def _move_next(self) -> Tensor:
        """Which lanes the last step of the chunk before moves, and where that moves nothing, any step."""
        rows = []
        for lane in self._findings.lanes:
            moved = self._moved_by(lane, -1)
            rows.append(moved if bool(moved[lane]) else moved | self._moved_by(lane, None))
        return torch.stack(rows)

    def _moved_by(self, lane: int, step: int | None) -> Tensor:
        outputs = self._bench.outputs(self._bench.inputs.change(self._bench.first, lane, step), self._second)
        return differs(outputs, self._before).flatten(1).any(dim=1).cpu()

    def _look_at_the_reset(self, lanes: tuple[int, ...]) -> None:
        place = self._bench.reader.place
        if isinstance(place, HeldState) and not self._bench.reader.can_reset:
            self._look_at_the_whole_reset(place)
            self._say("the reset of single lanes: the module keeps the state itself; give `carry=lambda state, starts: "
                      "...` if the training resets lanes")  # fmt: skip
            return
        if isinstance(place, HandedState) and not self._bench.reader.is_own_carry and self._begins_otherwise(place):
            self._say("the reset of single lanes: the model begins with something else than zeros where no state is "
                      "given; give `state=lambda lanes: ...`")  # fmt: skip
            return
        try:
            incomplete, hits_others = self._move_after_reset(lanes)
        except ResetUnknownError as error:
            self._say(f"the reset of single lanes: {error}")
            return
        self._findings.found |= {"reset is incomplete": incomplete, "reset hits others": hits_others}

    def _move_after_reset(self, lanes: tuple[int, ...]) -> tuple[bool, bool]:
        """Whether a reset lane still depends on its past, and whether the reset changes other lanes."""
        incomplete = hits_others = False
        for lane in lanes:
            starts = self._bench.no_starts()
            starts[lane] = True
            before = self._bench.outputs(self._bench.first, self._second, starts)
            after = self._bench.outputs(self._bench.inputs.change(self._bench.first, lane), self._second, starts)
            incomplete |= bool(differs(after[lane], before[lane]).any())
            hits_others |= bool(differs(before, self._before)[~starts].any())
        return incomplete, hits_others

    def _begins_otherwise(self, place: HandedState) -> bool:
        """Whether a model that makes its own first state reads otherwise from zeros."""
        if not place.makes_its_own:
            return False
        zeros = place.form.fresh(self._bench.num_lanes)
        self._bench.reader.again()
        outputs, _ = self._bench.reader.step(self._bench.first, zeros, self._bench.shapes)
        return not is_near(self._bench.arranged(outputs), self._bench.read(self._bench.first)[0][0])

    def _look_at_the_whole_reset(self, place: HeldState) -> None:
        """Whether the module's own reset forgets all that was read."""
        if place.reset is None:
            return
        bench, found = self._bench, []
        for first in (bench.first, bench.inputs.change(bench.first, 0)):
            bench.reader.again()
            for chunk in (first, self._second):
                outputs, _ = bench.reader.step(chunk, bench.reader.begin(bench.num_lanes), bench.inputs.in_words(chunk))
            found.append(bench.arranged(outputs))
        self._findings.found["reset is incomplete"] = bool(differs(*found).any())

    def _without_lanes(self) -> None:
        """What can be said where the outputs do not tell the lanes apart."""
        self._say("which lanes are mixed, and the reset: the outputs have no axis for the lanes; let `call` return "
                  "them before they are summed or averaged")  # fmt: skip
        # Outputs of each step, but not of each lane: the lanes are taken for steps, or summed.
        self._findings.found["rows are mixed"] = self._bench.form.step_axis is not None
        before = self._bench.outputs(self._bench.first, self._bench.second)
        changed = (self._bench.inputs.change(self._bench.first, lane) for lane in self._findings.lanes)
        moved = (differs(self._bench.outputs(first, self._bench.second), before).any() for first in changed)
        self._findings.found["state is not carried"] = not self._bench.can_miss and not all(map(bool, moved))

    def _look_at_the_gradient(self) -> None:
        """Whether the second chunk's outputs have a gradient in the state that the first one left."""
        if self._bench.can_miss:
            self._say("the gradient: the outputs are whole numbers; let `call` return the logits")
            return
        try:
            outputs, left = self._with_gradient()
        except ModelRaisedError as error:  # it reads without a gradient, as all else has shown
            self._say(f"the gradient: {error} where one is recorded")
            return
        if not outputs.requires_grad:
            self._say("the gradient: the outputs have none")
            return
        try:
            self._findings.found["gradient crosses the cut"] = bool(left) and _has_gradient(outputs, left)
        except RuntimeError as error:  # what it needs was changed in place, say
            self._say(f"the gradient: going back through the model raised {in_one_line(error)}")

    def _with_gradient(self) -> tuple[Tensor, list[Tensor]]:
        """Outputs of the second chunk, and the tensors with a gradient in the state that the first one left."""
        bench, reader = self._bench, self._bench.reader
        first, second = (bench.inputs.with_gradient(part) for part in (bench.first, self._second))
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient in eval mode
            reader.again()
            begun = reader.begin(bench.num_lanes)
            begun = None if begun is None else bench.inputs.with_gradient(begun)
            _, state = reader.step(first, begun, bench.shapes)
            left = [leaf for leaf in _leaves_or_none(state) if isinstance(leaf, Tensor) and leaf.requires_grad]
            outputs, _ = reader.step(second, reader.hand_over(state, bench.no_starts()), bench.inputs.in_words(second))
            return bench.arranged(outputs), left

    def _look_at_the_whole(self) -> None:
        """Whether two chunks give what the same steps give as one."""
        if self._findings.faults:
            return
        why = self._why_no_whole()
        if not why:
            try:
                self._compare_with_the_whole()
            except ModelRaisedError as error:  # too long for the model, say
                why = f"the two as one, of {2 * self._bench.num_steps} steps, are not read: {error}"
        if why:
            self._say(f"whether two chunks give what the whole gives: {why}")

    def _why_no_whole(self) -> str:
        if not self._bench.inputs.has_steps:
            return "the inputs have no axis for the steps"
        if not self._bench.inputs.has_only_steps:
            return "some inputs have no axis for the steps, such as lengths, and cannot be joined"
        if self._bench.can_miss:
            return "the outputs are whole numbers"
        if self._bench.form.lane_axis is None:
            return "the outputs have no axis for the lanes"
        return ""

    def _compare_with_the_whole(self) -> None:
        whole, state = self._bench.read(self._bench.inputs.join(self._bench.first, self._bench.second))
        parts, state_after = self._bench.read(self._bench.first, self._bench.second)
        if self._bench.form.step_axis is not None:
            is_same = is_near(torch.cat(parts, dim=1), whole[0])
        else:  # one output for a chunk: it may pool its steps, and then the state alone is comparable
            is_same = is_near(parts[1], whole[0]) or self._states_are_near(state_after, state)
        self._findings.found["chunks differ from the whole"] = not is_same

    def _states_are_near(self, one: Any, other: Any) -> bool:
        pairs = list(zip(_leaves_or_none(one), _leaves_or_none(other), strict=False))
        tensors = [pair for pair in pairs if all(isinstance(leaf, Tensor) for leaf in pair)]
        return bool(tensors) and all(is_near(*pair) for pair in tensors)

    def _say(self, text: str) -> None:
        self._findings.unknown.append(text)


def _leaves_or_none(state: Any) -> list[Any]:
    try:
        return leaves_of(state)
    except RuleError:
        return []


def _has_gradient(outputs: Tensor, left: list[Tensor]) -> bool:
    """Not of the sum of squares: of normalised outputs that is a constant."""
    outputs = torch.view_as_real(outputs) if outputs.is_complex() else outputs
    weights = torch.linspace(0.5, 1.5, outputs.numel(), device=outputs.device).sin().view(outputs.shape)
    loss = (outputs.nan_to_num() * weights.to(outputs.dtype)).sum()
    gradients = torch.autograd.grad(loss, left, allow_unused=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)
