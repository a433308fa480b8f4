"""A watch over any training: what does it do with the states of its recurrent layers?"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from echo_torch.diagnosis.hooks import remove_hook
from echo_torch.diagnosis.stamps import Stamps, checked_stamps
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.compiled import (
    BY_COMPILE,
    BY_FUNC,
    BY_JIT,
    Compilers,
    hides_recurrence,
    is_compiled,
    is_mapped,
    is_recorded,
)
from echo_torch.diagnosis.watching.layers import RECURRENT, is_of_no_interest
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.seen import Seen, named_error
from echo_torch.diagnosis.watching.shared import CODE, Shared
from echo_torch.diagnosis.watching.waiting import returned
from echo_torch.diagnosis.watching.warned import Warned
from echo_torch.diagnosis.watching.zeroing import Zeroing
from echo_torch.errors import RuleError

DEFAULT_UPDATES = 50


class Watch(Seen):
    """What `watch` returns: a context in which trainings are watched, and what was seen.

    Attributes:
        faults: The faults that were seen; `findings` has them as plain values, beside what is unknown.
        intended: What was seen of the kinds that are meant.
        unknown: What could not be seen, in sentences.
        fault: What has gone wrong in the watch itself; it watches no more then, and the training goes on.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        updates: int = DEFAULT_UPDATES,
        intended: Sequence[str] = (),
        when_over: Callable[[], None] | None = None,
    ) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise RuleError("model", "$model must be a torch.nn.Module, or None for all modules", type(model).__name__)
        if updates < 1:
            raise RuleError("updates", "$updates must be at least 1", updates)
        super().__init__(Calls(updates, self._guarded), model, intended)
        self._own = None if model is None else {id(module) for module in model.modules()}
        self._when_over = when_over
        self._loaders: Any = None
        self._handles: list[Any] = []
        self._warned = Warned(Places.__torch_function__.__code__, CODE)
        self._shared = Shared(self._calls.places, self._guarded)
        self._compilers = Compilers(self._step_aside_because)
        self._zeroing = Zeroing(self._calls.places)

    def __enter__(self) -> Self:
        """Begin to watch."""
        from torch.optim import optimizer  # a second, spent by who trains anyway

        from echo_torch.diagnosis.watching.loaders import Loaders

        calls = self._calls
        calls.is_released = False
        if self._model is not None and any(map(is_compiled, self._model.modules())):
            self._aside = BY_COMPILE
            return self
        self._compilers.begin()
        calls.places.begin()
        self._warned.begin()
        self._shared.begin()
        self._zeroing.begin()
        self._loaders = Loaders(calls.places, calls.padding, calls.note_batch, self.place)
        self._loaders.begin()
        self._handles = [
            register_module_forward_pre_hook(self._guarded(self._enter)),
            register_module_forward_hook(self._guarded(self._leave), with_kwargs=True, always_call=True),
            optimizer.register_optimizer_step_pre_hook(self._begin_step),
            optimizer.register_optimizer_step_post_hook(self._guarded(lambda *given: calls.end_step())),
        ]
        if self._when_over is not None:
            self._handles += [
                register_module_forward_hook(lambda *given: self._ask_whether_over()),
                optimizer.register_optimizer_step_post_hook(lambda *given: self._ask_whether_over()),
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Watch no more; nothing is left behind in torch or in the model."""
        self._end()

    def step_aside(self) -> None:
        """Watch no more from the middle of a training on, as in a process that was forked from it."""
        self._end(is_forced=False)

    def _step_aside_because(self, why: str) -> None:
        if not self._aside:
            self._aside = why
            self.step_aside()

    def _end(self, *, is_forced: bool = True) -> None:
        self._calls.places.look_at_waiting()
        self._calls.places.end(is_forced=is_forced)
        self._warned.end()
        self._shared.end()
        self._zeroing.end()
        self._compilers.end()
        if self._loaders is not None:
            self._loaders.end()
        for handle in self._handles:
            remove_hook(handle)
        self._handles.clear()
        self._calls.release()

    def place(self, tensor: Tensor, stamps: Stamps) -> None:
        """Say where a tensor's rows stand, where this cannot be followed back, as of batches out of loader workers.

        >>> import torch
        >>> lstm, state = torch.nn.LSTM(2, 3, batch_first=True), None
        >>> with watch(lstm) as seen:
        ...     for begin in (0, 10, 20):  # two rows of four steps, of which each batch leaves out six
        ...         batch = torch.randn(2, 4, 2)
        ...         seen.place(batch, Stamps(step=torch.arange(begin, begin + 4).expand(2, 4), sequence=[0, 1]))
        ...         output, state = lstm(batch, state)
        >>> seen.reach().gaps
        {0: 18, 6: 4}

        Args:
            tensor: (lanes, steps, ...), what the model reads, or what that is made of.
            stamps: As of `reach`.

        Raises:
            RuleError: If the stamps do not fit the tensor, or as of `reach`.
        """
        checked = checked_stamps(stamps)
        if tensor.shape[:2] != checked.step.shape:
            rule = "$stamps must have a $step for each row and step of the tensor, (lanes, steps)"
            raise RuleError("stamps", rule, f"shape {checked.step.shape} for a tensor of shape {tuple(tensor.shape)}")
        self._calls.stand(tensor, checked)

    def _guarded(self, notice: Callable[..., None]) -> Callable[..., None]:
        """A hook that never gets in the way: its first error is a line on standard error, and no hook acts any more."""

        def hook(*given: Any) -> None:
            if self.fault is None:
                try:
                    notice(*given)
                except Exception as error:
                    self.fault = error
                    self._calls.places.end(is_forced=False)
                    if self._loaders is not None:
                        self._loaders.end()
                    if sys.stderr is not None:
                        print(
                            f"echo_torch watch broke off, by a fault of its own: {named_error(error)}.", file=sys.stderr
                        )

        return hook

    def _begin_step(
        self, optimizer: Any, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        begun: list[bool] = []
        self._guarded(lambda: begun.append(self._calls.begin_step()))()
        if begun != [True] or not any(map(callable, (*inputs[1:], *named.values()))):
            return None
        return (inputs[0], *map(self._followed, inputs[1:])), {key: self._followed(each) for key, each in named.items()}

    def _followed(self, closure: Any) -> Any:
        """A closure of an optimiser's step, followed in the midst of that."""
        if not callable(closure):
            return closure
        begin, end = self._guarded(self._calls.begin_closure), self._guarded(self._calls.end_closure)

        @functools.wraps(closure)
        def followed(*given: Any, **named: Any) -> Any:
            begin()
            answer = closure(*given, **named)
            end()  # where it raises, the step ends with it, and all is followed as outside of it
            return answer

        return followed

    def _ask_whether_over(self) -> None:
        over: list[bool] = []
        self._guarded(lambda: over.append(self._calls.is_over()))()
        if self._when_over is not None and over == [True]:
            self._when_over()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kind = cast(Any, type(module))
        if is_of_no_interest(kind) and self._calls.enter_inside():
            return
        if is_compiled(module):
            self._step_aside_because(BY_COMPILE)
            return
        if self._calls.is_idle or is_recorded():
            if not self._calls.is_idle and is_mapped():
                self._note_mapped(module)
            self._calls.enter(module)
            return
        if isinstance(module, torch.jit.ScriptModule) and hides_recurrence(module):
            self._calls.note_hidden(module, BY_JIT)
        self._calls.note_root(module)
        with DisableTorchFunction():
            if self._own is None or id(module) in self._own:
                self._calls.enter_own(module, inputs)
            else:
                self._calls.enter(module, inputs)
            self._calls.places.begin_layer(module, inputs)

    def _note_mapped(self, module: nn.Module) -> None:
        self._calls.note_root(module)
        if isinstance(module, RECURRENT) and (self._own is None or id(module) in self._own):
            self._calls.note_hidden(module, BY_FUNC)

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], *named_and_output: Any) -> None:
        calls, kind = self._calls, cast(Any, type(module))
        if is_of_no_interest(kind) and calls.leave_inside():
            return
        if (calls.is_idle and not isinstance(module, RECURRENT)) or is_recorded():
            calls.leave_other()
            return
        # Where a module has raised, torch leaves out the named arguments.
        named, output = ({}, *named_and_output)[-2:]
        is_own = self._own is None or id(module) in self._own
        if calls.is_idle and is_own and calls.is_skipped(module, inputs, named, output):
            calls.leave_other()
            calls.rest()
            return
        with DisableTorchFunction():  # what is done here is no way of data
            is_closed = calls.places.end_layer(module)
            if isinstance(module, RECURRENT):
                calls.leave_recurrent(returned(module, inputs, named, output, is_closed=is_closed), is_own=is_own)
            elif is_own:
                calls.leave(module, (inputs, named), output)
            else:
                calls.leave_other()
            calls.rest()


def watch(model: nn.Module | None = None, *, updates: int = DEFAULT_UPDATES, intended: Sequence[str] = ()) -> Watch:
    """Watch what a training does with the states of its recurrent layers, without a word about the data.

    >>> import torch
    >>> lstm = torch.nn.LSTM(2, 3, batch_first=True)
    >>> optimizer, state = torch.optim.SGD(lstm.parameters(), lr=0.1), None
    >>> with watch(lstm) as seen:
    ...     for chunk in torch.randn(4, 5, 6, 2):
    ...         output, (hidden, cells) = lstm(chunk, state)
    ...         state = cells.detach(), hidden.detach()  # in the wrong order
    ...         output.mean().backward()
    ...         optimizer.step()
    >>> [finding.kind for finding in seen.faults]
    ['fields-swapped']
    >>> print(seen.lines()[0])
    LSTM is called 4 times in training: 3 with what an earlier call left, 1 without a state.

    Any loop may run inside, as long as it calls layers of torch.nn: nn.RNN, nn.LSTM, nn.GRU or their cells. Whatever
    state enters a layer is looked up among what the calls before it left, row by row. Whatever is read is followed back
    to the tensors that it comes from, through slices, batches, packed rows and embeddings, and from loader workers by a
    copy of the dataset. The training is not changed, and no hook is left behind.

    Args:
        model: Whose layers; None: all that are called.
        updates: So many optimiser steps are watched, later only the calls around each change between training and
            evaluation.
        intended: Kinds of findings that are meant, such as "other-sequence" where a method carries the state of another
            sequence. They are no faults, and stand in `intended` instead.

    Returns:
        A context; its `faults`, `unknown` and `lines()` tell what was seen, also while it is open.

    Raises:
        RuleError: If the model is none, `updates` is below 1, or a kind is unknown.
    """
    return Watch(model, updates=updates, intended=intended)
