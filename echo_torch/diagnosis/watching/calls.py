"""The calls of recurrent layers, as they come: what enters each, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torch.nn.utils.rnn import PackedSequence

from echo_torch.diagnosis.stamps import CheckedStamps
from echo_torch.diagnosis.watching.by_hand import ByHand
from echo_torch.diagnosis.watching.compiled import BY_SHAPES
from echo_torch.diagnosis.watching.gradients import Gradients, Guard
from echo_torch.diagnosis.watching.lanes import Lanes, Rows, calls_in, fields_of
from echo_torch.diagnosis.watching.lasting import LastingArrays
from echo_torch.diagnosis.watching.layers import (
    RECURRENT,
    has_no_values,
    lane_axis,
    num_rows_of,
    read_and_given,
    reads_one_step,
    state_of,
)
from echo_torch.diagnosis.watching.padding import Padding
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.recorded import Call, Entering, Unwatched
from echo_torch.diagnosis.watching.standing import even_of, standing_later, steps_of
from echo_torch.diagnosis.watching.unpacked import Unpacked
from echo_torch.diagnosis.watching.waiting import Returned, Waiting

_WRAPPERS = ("DataParallel", "DistributedDataParallel")  # around a script's own model
_MOST_PASSES = 20  # of a loader that are looked at after the first updates
MOST_CALLS = 5_000  # that are recorded: of a cell that is stepped, a few updates hold as many


@dataclass(slots=True)
class _Exchange:
    """The state that a layer was given, and the one that it left."""

    is_training: bool
    has_gradients: bool
    given: Any
    fields: list[Tensor]
    num_rows: int


class Calls:
    """Records the calls of the first updates, and later those around each change between training and evaluation.

    Args:
        most_updates: How many optimiser steps are watched; without an optimiser as many calls of the whole model.
        guarded: Makes a hook one that cannot raise.

    Attributes:
        calls: All that were recorded.
        most_updates: As above.
        layers: The recurrent layers that were called, in the order of their first call.
        roots: The modules that were called from outside of any other.
        gradients: Those that come back to the calls.
        places: Where values stand.
        padding: Which of them are padding.
        unpacked: What was given for packed rows, and is padded again.
        lasting: The arrays that are there for longer than a batch.
        is_idle: Whether nothing is to be seen until training and evaluation change, or an optimiser makes a first step.
        hidden: Modules that were called, of whose states something is not seen, and why, by their ids.
        unwatched: What was not all recorded, by whether an optimiser had made a step: with its first one the first
            updates begin, and what came before is over.
        by_hand: Recurrences without a recurrent layer.
        waiting: Calls that are looked at together later.
        is_released: Whether nothing is added any more to what was recorded.
    """

    def __init__(
        self,
        most_updates: int,
        guarded: Guard = lambda hook: hook,
    ) -> None:
        self.calls: list[Call] = []
        self.most_updates = most_updates
        self.layers: list[nn.Module] = []
        self.roots: list[nn.Module] = []
        self.gradients = Gradients(self.calls, guarded)
        self.places = Places()
        self.padding = Padding(self.places)
        self.unpacked = Unpacked(self.places)
        self.by_hand = ByHand(RECURRENT)
        self.places.use = self.by_hand.use
        self.lasting = LastingArrays(self.places.arrays)
        self.places.waiting = self.waiting = Waiting(guarded(self._look), guarded(self.gradients.close))
        self.unwatched: dict[bool, Unwatched] = {}
        self.is_idle = self.is_released = False
        self._num_passes = 0  # that were watched after the first updates
        self._is_at_border = False
        self.hidden: dict[int, tuple[nn.Module, str]] = {}
        self._told: CheckedStamps | None = None
        self._numbers: dict[int, int] = {}
        self._lanes = Lanes()
        self._depth = self._root = self._finished = 0
        self._skipped: dict[int, _Exchange] = {}  # of each layer its last call, if that was not recorded

    @property
    def update(self) -> int:
        """Optimiser steps so far."""
        return self.gradients.update

    @property
    def first_skipped(self) -> int | None:
        """The number that the first call would have had that was not recorded; None: all were."""
        return min((part.first for part in self.unwatched.values()), default=None)

    @property
    def is_full(self) -> bool:
        """Whether as many calls are recorded as may be."""
        return len(self.calls) >= MOST_CALLS

    def note_root(self, module: nn.Module) -> None:
        """A module is called, perhaps from outside of any other."""
        if self._depth == 0 and self._is_watched():
            if type(module).__name__ in _WRAPPERS and isinstance(module.module, nn.Module):
                module = module.module
            if not any(module is root for root in self.roots):
                self.roots.append(module)

    def note_hidden(self, module: nn.Module, why: str) -> None:
        """A module is called, of whose states something is not seen."""
        self.hidden[id(module)] = module, why

    def enter(self, module: nn.Module, inputs: Any = ()) -> None:
        """A module is called. A loss that is one is no call of the model."""
        if self._depth == 0:
            if not self.places.is_paused:
                self.padding.note_batch(inputs)
            self._root += not isinstance(module, _Loss)
        self._depth += 1

    def enter_inside(self) -> bool:
        """A module is called of which nothing is to be seen, if not from outside of any other; return whether so."""
        is_inside = self._depth > 0
        self._depth += is_inside
        return is_inside

    def leave_inside(self) -> bool:
        """It has returned, or raised."""
        is_inside = self._depth > 1
        self._depth -= is_inside
        return is_inside

    def enter_own(self, module: nn.Module, inputs: Any = ()) -> None:
        """A module is called that is looked at."""
        self.enter(module, inputs)
        if self.by_hand.may_be_one(module) and self._is_watched() and not torch.compiler.is_compiling():
            self.by_hand.enter(module)

    def is_skipped(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> bool:
        """Whether nothing is to be seen of a call of a recurrent layer but that the latest one is remembered."""
        skipped = self._skipped.get(self._numbers.get(id(module), -1))
        if skipped is None or skipped.is_training != module.training or self._is_watched():
            return False
        self._note_unwatched()
        read, skipped.given = read_and_given(inputs, named)
        skipped.has_gradients = torch.is_grad_enabled()
        skipped.fields = [tensor.detach() for tensor in fields_of(state_of(module, output))]
        skipped.num_rows = num_rows_of(module, read)
        return True

    def leave_other(self) -> None:
        """A module that is not looked at has returned."""
        self._depth = max(0, self._depth - 1)

    def rest(self) -> None:
        """What follows when a module has returned, if it is the outermost."""
        if self._depth == 0:
            self.waiting.look()
            self._finished = self._root
            self.places.forget_what_was_made()
            if not self._is_watched():
                self.is_idle = self.places.is_paused = True  # up to the next update, if there is one

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module has returned that is no recurrent layer, or raised: then there is no output."""
        self.leave_other()
        self.by_hand.leave(module, inputs, output)

    def leave_recurrent(self, call: Returned, *, is_own: bool) -> None:
        """A recurrent layer has returned; `is_own` says whether it is looked at."""
        self.leave_other()
        if is_own and call.is_closed and self._depth and isinstance(call.module, nn.RNNCellBase):
            self.waiting.add(call)
            return
        self.waiting.look()
        if is_own and not torch.compiler.is_compiling():
            self._look(call)
            self.gradients.close()
        elif call.is_closed:
            self._follow(call)

    def _follow(self, call: Returned) -> None:
        self.places.follow_layer(call.module, (*call.inputs, *call.named.values()), call.output)

    def _look(self, returned: Returned) -> None:
        """Look at a call of a recurrent layer."""
        if returned.is_closed:
            self._follow(returned)
        module = returned.module
        if has_no_values(module):
            self.note_hidden(module, BY_SHAPES)
            return
        read, given = read_and_given(returned.inputs, returned.named)
        layer, fields = self._number(module), fields_of(state_of(module, returned.output))
        num_rows = num_rows_of(module, read)
        now = _Exchange(returned.is_training, returned.has_gradients, given, fields, num_rows)
        skipped = self._skipped.pop(layer, None)
        if not self._is_watched() and (skipped is None or skipped.is_training == now.is_training):
            self._note_unwatched()
            now.fields = [tensor.detach() for tensor in fields]
            self._skipped[layer] = now
            return
        if skipped is not None:  # what it left may enter now
            self._record(module, layer, skipped).is_remembered = True
        call = self._record(module, layer, now)
        call.is_step = reads_one_step(module, read)
        steps = self._stand(call, module, read)
        self._listen(call, returned, now, steps)

    def _stand(self, call: Call, module: nn.Module, read: Any) -> Tensor | None:
        """Note where a call stands; return the places of its steps where it may read padding."""
        is_followed = isinstance(read, (Tensor, PackedSequence)) and not self.places.is_paused
        is_followed &= not self.places.is_fed_back(module, read)
        call.is_exchanged = isinstance(read, Tensor) and self.places.layouts.is_exchanged(read)
        even = even_of(module, read, self.places) if is_followed else None
        if even is not None and even.num_steps:
            call.stand(even, even.num_steps)
            self.lasting.note_even(even, self._root)
            return even.steps() if self.padding.knows_any else None
        steps = steps_of(module, read, self.places) if is_followed and even is None else None
        standing = None if steps is None else standing_later(steps, self.places)
        if steps is not None:
            call.stand(standing, steps.first.shape[1])
        self.lasting.note(() if standing is None else standing.first, self._root)
        return None if steps is None else steps.first

    def _listen(self, call: Call, returned: Returned, now: _Exchange, steps: Tensor | None) -> None:
        """Notice what is done with what a call has left, and the gradients that come back to it."""
        module, output = returned.module, returned.output
        features = output[0] if isinstance(module, nn.RNNBase) and output is not None else None
        if isinstance(features, Tensor) and features.ndim == 3 and now.num_rows > 1:
            self._listen_to_rows(call, features, 0 if getattr(module, "batch_first", False) else 1)
        if isinstance(features, PackedSequence):
            features = features.data
            self.unpacked.give(call, features, self.gradients.hook)
        left = [*now.fields, features]
        self.gradients.listen(call, now.given, left, has_gradients=now.has_gradients)
        if steps is not None and call.trains:
            read, _ = read_and_given(returned.inputs, returned.named)
            call.padded = self.padding.listen(module, read, steps, left, self.gradients.hook)

    def begin_step(self) -> bool:
        """An optimiser begins a step: what it does to weights is no way of data. Return whether its closure is one."""
        self.waiting.look()
        self.places.rest()
        return self.places.is_open

    def begin_closure(self) -> None:
        """In its step an optimiser asks a closure for the loss."""
        if self.places.is_open:
            self.places.go_on()

    def end_closure(self) -> None:
        """The closure has answered; it may be asked again."""
        self.waiting.look()
        if self.places.is_open:
            self.places.rest()

    def end_step(self) -> None:
        """An optimiser has made a step."""
        self.waiting.look()
        self.gradients.update += 1
        if self.is_idle and not self.places.is_open and not self._is_watched():
            return
        self.gradients.drop_gone()
        self.places.go_on()
        self.is_idle = self._depth == 0 and not self._is_watched()
        if not self._is_watched():
            self.places.end(is_forced=False)

    def note_batch(self, number: int, of: int | None, is_after_watched: bool) -> bool:
        """A loader is asked for a batch. Where one pass ends and another begins is watched after the first updates too.

        Args:
            number: Of the batch in its pass.
            of: How many there are; None: nobody knows.
            is_after_watched: Whether the batch of the same data before it was watched.

        Returns:
            Whether what is done with the batch is watched.
        """
        was_watched = self._is_watched()
        is_near = number <= 1 or (of is not None and number >= of - 1)
        self._is_at_border = is_near and self._num_passes <= _MOST_PASSES and self._depth == 0
        if self._is_at_border and not was_watched:
            self._is_at_border = self.places.begin_again()
            self.is_idle = not self._is_at_border
        if number == 0 and is_after_watched and self._is_watched() and not self._is_first():
            self._note_pass()
        return self._is_watched()

    def stand(self, tensor: Tensor, stamps: CheckedStamps) -> None:
        """Somebody says where a tensor's rows stand, (lanes, steps, ...)."""
        self.waiting.look()
        self._told = stamps
        self.lasting.numbers |= self.places.stand(tensor, stamps.sequence, stamps.step)

    def release(self) -> None:
        """Take all hooks from tensors."""
        self.gradients.release()
        self._skipped.clear()
        self._lanes.release()
        self.by_hand.release()
        self.is_released = True

    def is_over(self) -> bool:
        """Whether the first updates are over, and no module is at work."""
        return self._depth == 0 and not self._is_first()

    def _is_watched(self) -> bool:
        return self._is_first() or (self._is_at_border and not self.is_full)

    def _is_first(self) -> bool:
        number = self.update or self._finished
        return number < self.most_updates and not self.is_full

    def _note_unwatched(self) -> None:
        """A call is not recorded."""
        if (self.update > 0) not in self.unwatched:
            self.unwatched[self.update > 0] = Unwatched(len(self.calls), self.update)

    def _note_pass(self) -> None:
        """A pass begins that is watched for being a new one. Where all was recorded so far it is not worth a word."""
        self._num_passes += 1
        if (self.update > 0) in self.unwatched:
            self.unwatched[self.update > 0].new_passes += 1

    def _number(self, layer: nn.Module) -> int:
        number = self._numbers.setdefault(id(layer), len(self._numbers))
        if number == len(self.layers):
            self.layers.append(layer)  # kept alive, so that no other gets its id
        return number

    def _record(self, module: nn.Module, layer: int, what: _Exchange) -> Call:
        axis = lane_axis(module)
        call = Call(
            number=len(self.calls),
            layer=layer,
            root=self._root,
            update=self.update,
            trains=what.is_training and what.has_gradients,
            is_training=what.is_training,
            num_rows=what.num_rows,
            entering=self._entering(layer, what.given, axis),
            told=self._told,
        )
        self.calls.append(call)
        entering, strangers = call.entering, self.places.strangers
        if call.trains and entering.is_filled and not entering.calls and not entering.has_graph:
            entering.strange = strangers.what(layer, fields_of(what.given), axis)
        rows = [Rows(tensor, axis) for tensor in what.fields]
        if call.trains:
            strangers.leave(layer, rows)
        is_batch = all(tensor.ndim == axis + 2 for tensor in what.fields)
        self._lanes.leave(layer, rows if is_batch else [])
        return call

    def _entering(self, layer: int, given: Any, axis: int) -> Entering:
        fields = [tensor for tensor in fields_of(given) if tensor.ndim == axis + 2]
        if not fields:
            return Entering(is_given=given is not None)
        rows = self._lanes.rows(layer, fields, axis)
        origins = [self._lanes.origins(layer, each, number) for number, each in enumerate(rows)]
        origin_calls, has_graph = calls_in(origins), any(tensor.grad_fn is not None for tensor in fields)
        is_made = has_graph and not origin_calls and rows[0].number > 0
        empty = set(rows[0].empty).intersection(*(each.empty for each in rows[1:])) if rows[0].empty else ()
        num_filled = sum(len(each.empty) < each.number for each in rows)
        return Entering(
            is_given=True,
            num_lanes=max(each.number for each in rows),
            is_filled=num_filled > 0,
            is_half_empty=0 < num_filled < len(rows),
            origins=origins,
            calls=origin_calls,
            empty_lanes=sorted(empty) if empty else (),
            has_graph=has_graph,
            made=hash(next(iter(rows[0]))) if is_made else None,
            strange="order" if is_made and self._lanes.are_mixed(rows[0]) else None,
        )

    def _listen_to_rows(self, call: Call, output: Tensor, axis: int) -> None:
        """Notice if the last row of an output is taken alone."""

        def notice() -> None:
            call.takes_last_row = True

        self.places.layouts.give(output, axis, notice)
