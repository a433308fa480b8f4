"""What a watch has seen, in findings, sentences and numbers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

from torch import nn
from torch._C import DisableTorchFunction

from echo_torch.diagnosis.data_path.reaching import DEFAULT_MAX_LAG, Reach
from echo_torch.diagnosis.watching.beginnings import beginnings_in, kind_of
from echo_torch.diagnosis.watching.calls import MOST_CALLS, Calls
from echo_torch.diagnosis.watching.compiled import BY_SHAPES
from echo_torch.diagnosis.watching.findings import Finding, findings_by_hand, findings_of
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.kinds import check_kinds
from echo_torch.diagnosis.watching.names import names_of
from echo_torch.diagnosis.watching.observed import UnknownError
from echo_torch.diagnosis.watching.reaches import number_of, reach_in_words, reach_seen
from echo_torch.diagnosis.watching.recorded import Call, Unwatched
from echo_torch.diagnosis.watching.tracks import SeenCall, tracks_of
from echo_torch.diagnosis.watching.unknowns import unknown_of

_FEW_NAMES = 3  # of layers of which the same is said


Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def _apart(ask: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """What it takes to answer is no way of data: while a watch is open nothing follows it."""

    @functools.wraps(ask)
    def asked(*given: Given.args, **named: Given.kwargs) -> Answer:
        with DisableTorchFunction():
            return ask(*given, **named)

    return asked


class Seen:
    """What the calls of recurrent layers tell, also while they are still being watched.

    Args:
        calls: What was recorded.
        model: As of `watch`.
        intended: As of `watch`.

    Attributes:
        fault: What has gone wrong in the watch itself; it watches no more then, and the training goes on.
    """

    def __init__(self, calls: Calls, model: nn.Module | None, intended: Sequence[str]) -> None:
        self.fault: Exception | None = None
        self._aside = ""  # why it watches no more
        self._calls = calls
        self._model = model
        self._intended = check_kinds("intended", intended)
        self._rows: dict[int, HandOvers] = {}  # by layers, as soon as nothing is added any more

    @property
    def faults(self) -> list[Finding]:
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
    @_apart
    def unknown(self) -> list[str]:
        """What could not be seen, in sentences."""
        fault = (
            [] if self.fault is None else [f"The watch broke off, by a fault of its own: {named_error(self.fault)}."]
        )
        fault += [self._aside] if self._aside else []
        of_layers: dict[str, list[str]] = {}  # the same is often said of several
        named = self._named()
        for module, why in self._hidden:
            of_layers.setdefault(why, []).append(named[id(module)])
        for number, name in enumerate(self._names()):
            for sentence in self._unknown_of(number):
                of_layers.setdefault(sentence, []).append(name)
        said = [f"{_listed(names)}: {sentence}" for sentence, names in of_layers.items()]
        unknown = [*fault, *said, *self._not_watched()]
        none = (
            [] if self.has_calls else ["No recurrent layer of torch.nn was called, so nothing is known of any state."]
        )
        return unknown or none

    def _unknown_of(self, layer: int) -> Iterator[str]:
        own, first = self._calls_of(layer), self._beginnings(layer)
        return unknown_of(layer, own, first, self._calls, self._rows_of(layer))

    def _not_watched(self) -> Iterator[str]:
        """Which borders were never seen: a state may be carried over one."""
        if any(call.trains and call.entering.calls for call in self._calls.calls):
            for has_updates, part in self._calls.unwatched.items():
                yield self._unwatched_in_words(part, is_second=has_updates and len(self._calls.unwatched) > 1)

    def _unwatched_in_words(self, part: Unwatched, *, is_second: bool) -> str:
        calls = self._calls
        first = f"{_first_few(len({call.root for call in calls.calls[: part.first]}), 'call')} of the model"
        is_over = calls.update > part.update == 0  # the first update has come, and with it all was watched again
        when = f"Between {first} and the first update" if is_over else f"After {first}"
        if is_second or (part.update and not calls.is_full):  # then updates were counted, and not calls
            when = f"After {_first_few(part.update, 'update')}"
        changes = "around changes between training and evaluation"
        if part.new_passes:
            passes = "a new pass" if part.new_passes == 1 else f"{part.new_passes:,} new passes"
            return f"{when} only the calls around {passes} of a loader were watched, and {changes}."
        unknown = ", so it is not known what the state does where the data begin anew later: "
        more = f"no more than {MOST_CALLS:,} calls of layers are watched" if calls.is_full else "more `updates` show it"
        return f"{when} only the calls {changes} were watched{'' if is_over else unknown + more}."

    @_apart
    def lines(self) -> list[str]:
        """All of it for people: what each layer's state does, the faults, and what could not be seen."""
        layers = [self._in_words(number, name) for number, name in enumerate(self._names()) if self._calls_of(number)]
        found = self._all_findings()
        faults = [_said(finding) for finding in found if finding.kind not in self._intended]
        intended = [f"intended: {_said(finding)}" for finding in found if finding.kind in self._intended]
        unknown = [f"unknown: {text}" for text in self.unknown]
        return [*layers, *self._reaches(), *(faults or ["No fault was seen."]), *intended, *unknown]

    @_apart
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
        >>> from echo_torch import watch
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
        number = number_of(layer, self._names())
        own, rows = self._calls_of(number), self._rows_of(number)
        try:
            return reach_seen(own, self._calls, rows, lag, vocabulary_size, max_lag)
        except UnknownError:
            return None

    @property
    def findings(self) -> dict[str, Any]:
        """The faults and what is unknown as plain values, as `--json` has them; what is intended too, if it may be."""
        found: dict[str, Any] = {"findings": [fault.to_dict() for fault in self.faults], "unknown": self.unknown}
        if self._intended:
            found["intended"] = [finding.to_dict() for finding in self.intended]
        return found

    @property
    def layers(self) -> list[str]:
        """The names of the recurrent layers that were called, in the order of their first calls."""
        return self._names()

    @_apart
    def tracks(self, layer: str | None = None) -> list[SeenCall]:
        """The calls of a layer that were watched, row by row: what a picture of them shows.

        Args:
            layer: As of `reach`.

        Raises:
            RuleError: As of `reach`.
        """
        number = number_of(layer, self._names())
        return tracks_of(self._calls_of(number), self._calls, self._rows_of(number))

    @_apart
    def _all_findings(self) -> list[Finding]:
        by_hand = list(self._calls.by_hand.found())
        names = names_of([module for module, _, _ in by_hand], self._models)
        counts = [(name, count, of) for name, (_, count, of) in zip(names, by_hand, strict=True)]
        found = [self._findings_of(number, name) for number, name in enumerate(self._names())]
        return [*itertools.chain(*found), *findings_by_hand(counts)]

    def _findings_of(self, layer: int, name: str) -> list[Finding]:
        return findings_of(name, self._calls_of(layer), self._calls, self._rows_of(layer))

    def _reaches(self) -> list[str]:
        """For each layer a sentence on its reach and horizon, where they are known."""
        return [words for number, name in enumerate(self._names()) for words in self._reach_in_words(number, name)]

    def _reach_in_words(self, layer: int, name: str) -> list[str]:
        return reach_in_words(name, self._calls_of(layer), self._calls, self._rows_of(layer))

    def _rows_of(self, layer: int) -> HandOvers:
        """How a layer's rows go on: of many rows it takes a while to say."""
        if not self._calls.is_released:
            self._rows.clear()
            return HandOvers(self._calls_of(layer), self._calls)
        if layer not in self._rows:
            self._rows[layer] = HandOvers(self._calls_of(layer), self._calls)
        return self._rows[layer]

    def _calls_of(self, layer: int) -> list[Call]:
        return [call for call in self._calls.calls if call.layer == layer]

    def _names(self) -> list[str]:
        """Of the layers that were called, by their numbers."""
        named = self._named()
        return [named[id(layer)] for layer in self._calls.layers]

    def _named(self) -> dict[int, str]:
        """The names of the layers that were called, and of the modules that hide something, by their ids."""
        modules = {id(module): module for module in (*self._calls.layers, *(module for module, _ in self._hidden))}
        return dict(zip(modules, names_of(list(modules.values()), self._models), strict=True))

    @property
    def _hidden(self) -> list[tuple[nn.Module, str]]:
        """Modules of whose states something is not seen. Beside real calls those with shapes alone count weights."""
        return [one for one in self._calls.hidden.values() if one[1] != BY_SHAPES or not self.has_calls]

    @property
    def _models(self) -> list[nn.Module]:
        """In which names are looked for: that which is asked about, or whatever was called from outside."""
        return [self._model] if self._model is not None else self._calls.roots

    def _judged_calls(self, layer: int) -> list[Call]:
        """The training calls of a layer; without any, those that evaluate."""
        own = [call for call in self._calls_of(layer) if not call.is_remembered]
        return [call for call in own if call.trains] or own

    def _beginnings(self, layer: int) -> list[Call]:
        return beginnings_in(self._judged_calls(layer), self._calls.calls)

    def _in_words(self, layer: int, name: str) -> str:
        first = self._beginnings(layer)
        kinds = [kind_of(call) for call in first]
        words = [f"{kinds.count(kind):,} {said}" for kind, said in _BEGINNINGS.items() if kind in kinds]
        # A cell that is stepped is called much more often than it begins.
        verb = "is called" if len(first) == len(self._judged_calls(layer)) else "begins"
        when = "training" if any(call.trains for call in first) else "evaluation"
        times = "once" if len(first) == 1 else f"{len(first):,} times"
        return f"{name} {verb} {times} in {when}{': ' if words else ''}{', '.join(words)}."


_BEGINNINGS = {  # by the words of `kind_of`
    "carried": "with what an earlier call left",
    "empty": "without a state",
    "made": "with one that the model has made",
    "unknown": "with one that no call has left",
}


def _said(finding: Finding) -> str:
    return f"{finding.kind} in {finding.module}: {finding.sentence}"


def named_error(error: Exception) -> str:
    """An error in words, without a stop behind it."""
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def _first_few(number: int, what: str) -> str:
    return f"the first {what}" if number == 1 else f"the first {number:,} {what}s"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW_NAMES} more layers" if len(names) > _FEW_NAMES + 1 else ""
    return ", ".join(names[: _FEW_NAMES if more else None]) + more
