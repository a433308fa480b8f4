"""A watch over any training: what does it do with the states of its recurrent layers?"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from torch import nn
from torch._C import DisableTorchFunction
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from echo_torch.diagnosis.watching.calls import Call, Calls
from echo_torch.diagnosis.watching.findings import Finding, findings_of
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.errors import RuleError

DEFAULT_UPDATES = 50


class Watch:
    """What `watch` returns: a context in which trainings are watched, and what was seen.

    Attributes:
        findings: The faults that were seen.
        unknown: What could not be seen, in sentences.
    """

    def __init__(self, model: nn.Module | None = None, *, updates: int = DEFAULT_UPDATES) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise RuleError("model", "$model must be a torch.nn.Module, or None for all modules", type(model).__name__)
        if updates < 1:
            raise RuleError("updates", "$updates must be at least 1", updates)
        self._model = model
        self._own = None if model is None else {id(module) for module in model.modules()}
        self._calls = Calls(updates)
        self._loaders: Any = None
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        """Begin to watch."""
        from torch.optim import optimizer  # a second, spent by who trains anyway

        from echo_torch.diagnosis.watching.loaders import Loaders

        calls = self._calls
        calls.places.begin()
        self._loaders = Loaders(calls.places, calls.padding)
        self._loaders.begin()
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, with_kwargs=True, always_call=True),
            optimizer.register_optimizer_step_pre_hook(lambda *given: calls.begin_step()),
            optimizer.register_optimizer_step_post_hook(lambda *given: calls.end_step()),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Watch no more; nothing is left behind in torch or in the model."""
        self._calls.places.end()
        self._loaders.end()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.release()

    @property
    def findings(self) -> list[Finding]:
        """The faults that were seen."""
        return findings_of(self._calls, self._names())

    @property
    def unknown(self) -> list[str]:
        """What could not be seen, in sentences."""
        if not self._calls.layers:
            return ["No recurrent layer of torch.nn was called, so nothing is known of any state."]
        found = []
        for number, name in enumerate(self._names()):
            first = self._first_calls(number)
            astray = sum(call.standing is None for call in first)
            if astray:
                found.append(
                    f"{name}: at {astray} of {len(first)} beginnings it is not known where the rows stand in the data, "
                    "nor whether they go on where their states stopped: `reach_of` and `StateAudit` tell."
                )
            rows = HandOvers([call for call in self._calls.calls if call.layer == number], self._calls)
            if rows.unknown:
                found.append(
                    f"{name}: at {rows.unknown} of {rows.unknown + rows.number} hand-overs it is not known whether a "
                    "row goes on where its state stopped, because the batches are made on the way."
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
        faults = [f"{finding.kind} in {finding.module}: {finding.sentence}" for finding in self.findings]
        return [*layers, *(faults or ["No fault was seen."]), *(f"unknown: {text}" for text in self.unknown)]

    def to_dict(self) -> dict[str, Any]:
        """Findings and what is unknown, ready for JSON."""
        return {"findings": [finding.to_dict() for finding in self.findings], "unknown": self.unknown}

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        with DisableTorchFunction():
            self._calls.enter(inputs)

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], *named_and_output: Any) -> None:
        # Where a module has raised, torch leaves out the named arguments.
        named, output = ({}, *named_and_output)[-2:]
        if self._own is None or id(module) in self._own:
            with DisableTorchFunction():  # what is looked at here is no way of data
                self._calls.leave(module, inputs, named, output)
        else:
            self._calls.leave_other()
        self._calls.rest()

    def _names(self) -> list[str]:
        known = {id(part): name for name, part in self._model.named_modules()} if self._model is not None else {}
        return [known.get(id(layer)) or type(layer).__name__ for layer in self._calls.layers]

    def _first_calls(self, layer: int) -> list[Call]:
        """Of each training call of the whole model, the first call of a layer."""
        first: dict[int, Call] = {}
        for call in self._calls.calls:
            if call.layer == layer and call.trains:
                first.setdefault(call.root, call)
        return list(first.values())

    def _in_words(self, layer: int, name: str) -> str:
        first = self._first_calls(layer)
        kinds = [_kind_of(call) for call in first]
        words = [f"{kinds.count(kind):,} {said}" for kind, said in _BEGINNINGS.items() if kind in kinds]
        return f"{name} begins {len(first):,} times in training{': ' if words else ''}{', '.join(words)}."


_BEGINNINGS = {
    "carried": "with what an earlier call left",
    "empty": "without a state",
    "made": "with one that the model has made",
    "unknown": "with one that no call has left",
}


def _kind_of(call: Call) -> str:
    """What a call begins with: a key of `_BEGINNINGS`."""
    if not call.entering.is_filled:
        return "empty"
    if call.entering.known():
        return "carried"
    return "made" if call.entering.has_graph else "unknown"


def watch(model: nn.Module | None = None, *, updates: int = DEFAULT_UPDATES) -> Watch:
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

    Returns:
        A context; its `findings`, `unknown` and `lines()` tell what was seen, also while it is open.

    Raises:
        RuleError: If the model is none, or `updates` is below 1.
    """
    return Watch(model, updates=updates)
