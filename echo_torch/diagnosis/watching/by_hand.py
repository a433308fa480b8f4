"""Recurrences that are written by hand: modules without a recurrent layer that read again what they have given."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from echo_torch.diagnosis.watching.compiled import hides_recurrence

_FEW_VALUES = 4  # that are alike by chance
_MOST_VALUES = 2**20  # of a tensor that is compared
_EARLIER = 4  # calls of a module whose results are compared
_TWICE = 2  # is a recurrence; once is a chance


@dataclass
class _Kept:
    """A tensor that a module keeps, as it is when the module is called."""

    tensor: Tensor
    version: int
    is_used: bool = False


@dataclass
class _Given:
    """A tensor that a module has returned; a detached one, and its version then."""

    tensor: Tensor
    version: int

    def is_read_as(self, tensor: Tensor) -> bool:
        """Whether a tensor that is read is this one, or has its values."""
        own = self.tensor
        if own.shape != tensor.shape or own.dtype != tensor.dtype or own.device != tensor.device:
            return False
        return own._version == self.version and (own.data_ptr() == tensor.data_ptr() or torch.equal(own, tensor))


@dataclass
class _Module:
    """What is known of a module: its calls, those in which it read what it had given, and what it gave last."""

    module: nn.Module  # kept alive, so that no other gets its id
    may_be_one: bool
    calls: int = 0
    again: int = 0
    given: deque[list[_Given]] = field(default_factory=lambda: deque(maxlen=_EARLIER))
    read: list[int] = field(default_factory=list)  # addresses


class ByHand:
    """Notices modules without a recurrent layer that are fed what they returned, or keep a state and change it.

    Args:
        layers: The classes of recurrent layers, which are looked at elsewhere.
    """

    def __init__(self, layers: tuple[type[nn.Module], ...]) -> None:
        self._layers = layers
        self._modules: dict[int, _Module] = {}
        self._open: list[tuple[nn.Module, dict[str, _Kept]]] = []
        self._kept: dict[int, _Kept] = {}

    def enter(self, module: nn.Module) -> None:
        """A module is called."""
        if not module.training or not torch.is_grad_enabled() or not self._known(module).may_be_one:
            return
        kept = {name: _Kept(tensor, tensor._version) for name, tensor in _kept_by(module)}
        self._open.append((module, kept))
        self._kept.update((id(each.tensor), each) for each in kept.values())

    def may_be_one(self, module: nn.Module) -> bool:
        """Whether a module may be a recurrence, as far as it is known already."""
        known = self._modules.get(id(module))
        return known is None or known.may_be_one

    def use(self, given: Iterable[Any]) -> None:
        """A function of torch is called."""
        if self._kept:
            for tensor in _tensors_in(given):
                kept = self._kept.get(id(tensor))
                if kept is not None:
                    kept.is_used = True

    def release(self) -> None:
        """Keep no tensor any more."""
        self._open.clear()
        self._kept.clear()
        for known in self._modules.values():
            known.given.clear()

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module has returned, or raised: then there is no output."""
        if not self._open or self._open[-1][0] is not module:
            return
        kept = self._open.pop()[1]
        for each in kept.values():
            self._kept.pop(id(each.tensor), None)
        known = self._known(module)
        read = list(_tensors_in(inputs))
        known.calls += 1
        known.again += _is_fed(known, read) or _is_changed(module, kept, read)
        known.read = [tensor.data_ptr() for tensor in read]
        if len(read) > 1 and output is not None:
            given = [_Given(tensor.detach(), tensor._version) for tensor in _tensors_in(output) if _is_state(tensor)]
            known.given.append(given)

    def found(self) -> Iterator[tuple[nn.Module, int, int]]:
        """The innermost modules with a recurrence: how many of their calls read what was given before, of how many."""
        found = {number: known for number, known in self._modules.items() if known.again >= _TWICE}
        for known in found.values():
            if not any(id(part) in found for part in known.module.modules() if part is not known.module):
                yield known.module, known.again, known.calls

    def _known(self, module: nn.Module) -> _Module:
        known = self._modules.get(id(module))
        if known is None:
            is_of_torch = type(module).__module__.split(".")[0] == "torch"
            has_layers = any(isinstance(part, self._layers) for part in module.modules()) or hides_recurrence(module)
            may_be_one = not is_of_torch and not has_layers
            known = self._modules[id(module)] = _Module(module, may_be_one)
        return known


def _is_fed(known: _Module, read: list[Tensor]) -> bool:
    """Whether a module reads something that it has given, and beside it something new of as many rows."""
    states = [
        tensor
        for tensor in read
        if _is_state(tensor) and any(given.is_read_as(tensor) for given in itertools.chain(*known.given))
    ]
    new = [
        tensor for tensor in read if tensor.data_ptr() not in known.read and not any(tensor is one for one in states)
    ]
    return any(_rows(state) & _rows(tensor) for state in states for tensor in new)


def _is_changed(module: nn.Module, kept: dict[str, _Kept], read: list[Tensor]) -> bool:
    """Whether a module has used a tensor that it keeps, with rows as of what it reads, and keeps another one now."""
    now = dict(_kept_by(module))
    return any(
        each.is_used
        and name in now
        and (now[name] is not each.tensor or now[name]._version != each.version)
        and any(_rows(each.tensor) & _rows(tensor) - {1} for tensor in read)
        for name, each in kept.items()
    )


def _kept_by(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a module keeps beside its weights, and that may be states."""
    for name, part in [*vars(module).items(), *module._buffers.items()]:
        if isinstance(part, Tensor) and not isinstance(part, nn.Parameter) and _is_state(part):
            yield name, part
        elif isinstance(part, (tuple, list)):
            for number, one in enumerate(part):
                if isinstance(one, Tensor) and _is_state(one):
                    yield f"{name}.{number}", one


def _is_state(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1 and _FEW_VALUES <= tensor.numel() <= _MOST_VALUES


def _rows(tensor: Tensor) -> set[int]:
    """The sizes that may count rows: not that of the features."""
    return set(tensor.shape[: 1 if tensor.ndim < 3 else 2])


def _tensors_in(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, dict):
        yield from _tensors_in(tuple(given.values()))
    elif isinstance(given, (tuple, list)):
        for part in given:
            yield from _tensors_in(part)
