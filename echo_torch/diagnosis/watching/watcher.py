"""A watch over any training: what does it do with the states of its recurrent layers?"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from echo_torch.diagnosis.data_path.reaching import DEFAULT_MAX_LAG, Reach
from echo_torch.diagnosis.hooks import remove_hook
from echo_torch.diagnosis.stamps import Stamps, checked_stamps
from echo_torch.diagnosis.watching.calls import Call, Calls
from echo_torch.diagnosis.watching.findings import Finding, findings_by_hand, findings_of
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.kinds import check_kinds
from echo_torch.diagnosis.watching.observed import UnknownError
from echo_torch.diagnosis.watching.reaches import number_of, reach_in_words, reach_seen
from echo_torch.diagnosis.watching.tracks import SeenCall, tracks_of
from echo_torch.errors import RuleError

DEFAULT_UPDATES = 50


class Watch:
    """What `watch` returns: a context in which trainings are watched, and what was seen.

    Attributes:
        findings: The faults that were seen.
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
        self._model = model
        self._own = None if model is None else {id(module) for module in model.modules()}
        self._intended = check_kinds("intended", intended)
        self._when_over = when_over
        self._calls = Calls(updates, self._guarded)
        self._loaders: Any = None
        self._handles: list[Any] = []
        self.fault: Exception | None = None
        self._aside = ""  # why it watches no more
        self._compile: Any = None  # torch's, while a wrapper stands in its place

    def __enter__(self) -> Self:
        """Begin to watch."""
        from torch.optim import optimizer  # a second, spent by who trains anyway

        from echo_torch.diagnosis.watching.loaders import Loaders

        calls = self._calls
        if self._model is not None and any(map(_is_compiled, self._model.modules())):
            self._aside = _COMPILED
            return self
        self._step_aside_of_compilers()
        calls.places.begin()
        self._loaders = Loaders(calls.places, calls.padding)
        self._loaders.begin()
        self._handles = [
            register_module_forward_pre_hook(self._guarded(self._enter)),
            register_module_forward_hook(self._guarded(self._leave), with_kwargs=True, always_call=True),
            optimizer.register_optimizer_step_pre_hook(
                self._guarded(
                    lambda _, inputs, named: calls.begin_step(
                        has_closure=any(map(callable, (*inputs[1:], *named.values())))
                    )
                )
            ),
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

    def _step_aside_of_compilers(self) -> None:
        """A compiler would compile hooks too, and what they do: so there are none when it begins."""
        compile_ = self._compile = torch.compile

        @functools.wraps(compile_)
        def aside(*args: Any, **kwargs: Any) -> Any:
            if not self._aside:
                self._aside = _COMPILED
                self.step_aside()
            return compile_(*args, **kwargs)

        torch.compile = aside

    def _end(self, *, is_forced: bool = True) -> None:
        self._calls.places.end(is_forced=is_forced)
        if self._compile is not None:
            torch.compile, self._compile = self._compile, None
        if self._loaders is not None:
            self._loaders.end()
        for handle in self._handles:
            remove_hook(handle)
        self._handles.clear()
        self._calls.release()

    @property
    def findings(self) -> list[Finding]:
        """The faults that were seen."""
        return [finding for finding in self._all_findings() if finding.kind not in self._intended]

    @property
    def intended(self) -> list[Finding]:
        """What was seen of the kinds that are meant."""
        return [finding for finding in self._all_findings() if finding.kind in self._intended]

    @property
    def has_calls(self) -> bool:
        """Whether a recurrent layer has been called."""
        return bool(self._calls.layers)

    @property
    def unknown(self) -> list[str]:
        """What could not be seen, in sentences."""
        fault = [] if self.fault is None else [f"The watch broke off, by a fault of its own: {_named(self.fault)}."]
        fault += [self._aside] if self._aside else []
        if not self._calls.layers:
            return fault or ["No recurrent layer of torch.nn was called, so nothing is known of any state."]
        found = fault
        for number, name in enumerate(self._names()):
            first = self._first_calls(number)
            astray = sum(call.standing is None for call in first)
            if astray:
                found.append(
                    f"{name}: at {astray} of {len(first)} beginnings it is not known where the rows stand in the data, "
                    "nor whether they go on where their states stopped: `reach_of` and `StateAudit` tell."
                )
            rows = HandOvers(self._calls_of(number), self._calls)
            if rows.unknown:
                found.append(
                    f"{name}: at {rows.unknown:,} of {rows.unknown + rows.number:,} hand-overs it is not known whether "
                    "a row goes on where its state stopped, because the batches are made on the way: `reach_of` and "
                    "`StateAudit` tell."
                )
            strange = [call for call in first if _kind_of(call) == "unknown"]
            if strange:
                found.append(
                    f"{name}: at {len(strange)} of {len(first)} beginnings the state is none that a call has left."
                )
        return found

    def lines(self) -> list[str]:
        """All of it for people: what each layer's state does, the faults, and what could not be seen."""
        layers = [self._in_words(number, name) for number, name in enumerate(self._names())]
        found = self._all_findings()
        faults = [_said(finding) for finding in found if finding.kind not in self._intended]
        intended = [f"intended: {_said(finding)}" for finding in found if finding.kind in self._intended]
        unknown = [f"unknown: {text}" for text in self.unknown]
        return [*layers, *self._reaches(), *(faults or ["No fault was seen."]), *intended, *unknown]

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

    def reach(
        self,
        layer: str | None = None,
        lag: int | None = None,
        *,
        vocabulary_size: int | None = None,
        max_lag: int = DEFAULT_MAX_LAG,
    ) -> Reach | None:
        """What the rows of a layer had read in training, as `reach` says it, from what was seen alone.

        A row begins where its state was empty, made by the model or left by another layer, and goes on where it was
        left by an earlier call, in whichever row. Steps count from where a row begins, unless stamps were given.

        >>> import torch
        >>> lstm, state = torch.nn.LSTM(2, 3), None
        >>> series = torch.randn(40, 5, 2)
        >>> with watch(lstm) as seen:
        ...     for begin in (0, 10, 20):
        ...         output, state = lstm(series[begin : begin + 4], state)
        >>> seen.reach(lag=6).gaps, seen.reach(lag=6).reachable_share
        ({0: 45, 6: 10}, 0.0)

        Args:
            layer: Its dotted name, as the findings have it; None: the only one.
            lag: As of `reach`.
            vocabulary_size: As of `reach`.
            max_lag: As of `reach`.

        Returns:
            The reach over the calls that were watched; None where it is unknown.

        Raises:
            RuleError: If there is no such layer, or several and none is named, or as of `reach`.
        """
        own = self._calls_of(number_of(layer, self._names()))
        try:
            return reach_seen(own, self._calls, lag, vocabulary_size, max_lag)
        except UnknownError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """Findings and what is unknown, ready for JSON; what is intended too, where something may be."""
        found: dict[str, Any] = {"findings": [finding.to_dict() for finding in self.findings], "unknown": self.unknown}
        if self._intended:
            found["intended"] = [finding.to_dict() for finding in self.intended]
        return found

    @property
    def layers(self) -> list[str]:
        """The names of the recurrent layers that were called, in the order of their first calls."""
        return self._names()

    def tracks(self, layer: str | None = None) -> list[SeenCall]:
        """The calls of a layer that were watched, row by row: what a picture of them shows.

        Args:
            layer: As of `reach`.

        Raises:
            RuleError: As of `reach`.
        """
        return tracks_of(self._calls_of(number_of(layer, self._names())), self._calls)

    def _all_findings(self) -> list[Finding]:
        by_hand = [(self._name(module), count, of) for module, count, of in self._calls.by_hand.found()]
        return findings_of(self._calls, self._names()) + findings_by_hand(by_hand)

    def _guarded(self, notice: Callable[..., None]) -> Callable[..., None]:
        """A hook that never gets in the way: its first error is a line on standard error, and no hook acts any more."""

        def hook(*given: Any) -> None:
            if self.fault is None:
                try:
                    notice(*given)
                except Exception as error:
                    self.fault = error
                    self._calls.places.end(is_forced=False)
                    if sys.stderr is not None:
                        print(f"echo_torch watch broke off, by a fault of its own: {_named(error)}.", file=sys.stderr)

        return hook

    def _ask_whether_over(self) -> None:
        over: list[bool] = []
        self._guarded(lambda: over.append(self._calls.is_over()))()
        if self._when_over is not None and over == [True]:
            self._when_over()

    def _reaches(self) -> list[str]:
        """For each layer a sentence on its reach and horizon, where they are known."""
        names = enumerate(self._names())
        return [words for number, name in names for words in reach_in_words(name, self._calls_of(number), self._calls)]

    def _calls_of(self, layer: int) -> list[Call]:
        return [call for call in self._calls.calls if call.layer == layer]

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if _is_compiled(module):
            self._aside = _COMPILED
            self.step_aside()
            return
        self._calls.note_root(module)
        with DisableTorchFunction():
            if self._own is None or id(module) in self._own:
                self._calls.enter_own(module, inputs)
            else:
                self._calls.enter(inputs)

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], *named_and_output: Any) -> None:
        # Where a module has raised, torch leaves out the named arguments.
        named, output = ({}, *named_and_output)[-2:]
        with DisableTorchFunction():  # what is done here is no way of data
            if self._own is None or id(module) in self._own:
                self._calls.leave(module, inputs, named, output)
            else:
                self._calls.leave_other()
            self._calls.rest()

    def _names(self) -> list[str]:
        return [self._name(layer) for layer in self._calls.layers]

    def _name(self, module: nn.Module) -> str:
        """Its dotted name in the model, or in whatever was called from outside; else that of its class."""
        roots = [self._model] if self._model is not None else self._calls.roots
        known = (named for root in roots for named in root.named_modules())
        return next((name for name, part in known if part is module and name), type(module).__name__)

    def _first_calls(self, layer: int) -> list[Call]:
        """Of each training call of the whole model, the first call of a layer; without any, of each evaluating one."""
        own = self._calls_of(layer)
        first: dict[int, Call] = {}
        for call in [call for call in own if call.trains] or own:
            first.setdefault(call.root, call)
        return list(first.values())

    def _in_words(self, layer: int, name: str) -> str:
        first = self._first_calls(layer)
        kinds = [_kind_of(call) for call in first]
        words = [f"{kinds.count(kind):,} {said}" for kind, said in _BEGINNINGS.items() if kind in kinds]
        when = "training" if any(call.trains for call in first) else "evaluation"
        return f"{name} begins {len(first):,} times in {when}{': ' if words else ''}{', '.join(words)}."


_BEGINNINGS = {
    "carried": "with what an earlier call left",
    "empty": "without a state",
    "made": "with one that the model has made",
    "unknown": "with one that no call has left",
}


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def _kind_of(call: Call) -> str:
    """What a call begins with: a key of `_BEGINNINGS`."""
    if not call.entering.is_filled:
        return "empty"
    if call.entering.known():
        return "carried"
    return "made" if call.entering.has_graph else "unknown"


_COMPILED = "The script compiles by torch.compile, and what is compiled cannot be watched: nothing was from there on."


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule"


def _said(finding: Finding) -> str:
    return f"{finding.kind} in {finding.module}: {finding.sentence}"


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
    >>> [finding.kind for finding in seen.findings]
    ['fields-swapped']
    >>> print(seen.lines()[0])
    LSTM begins 4 times in training: 3 with what an earlier call left, 1 without a state.

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
        A context; its `findings`, `unknown` and `lines()` tell what was seen, also while it is open.

    Raises:
        RuleError: If the model is none, `updates` is below 1, or a kind is unknown.
    """
    return Watch(model, updates=updates, intended=intended)
