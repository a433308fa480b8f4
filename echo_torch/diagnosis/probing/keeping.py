"""A model that is only looked at: read in eval mode, and afterwards what it was before."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from echo_torch.errors import RuleError
from echo_torch.models.state import leaves_of

_MOST_LANES, _MOST_SIZES = 256, 6  # of the tensors on a module
FUNCTIONS = (FunctionType, MethodType, partial)
_UNNAMED = "?"  # instead of a name: it stands in no attribute, but in what a function reads
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@contextmanager
def model_kept(model: Any) -> Iterator[ModelKept]:
    """In eval mode inside; afterwards modes, weights, gradients, buffers and attributes are as they were.

    >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    >>> with model_kept(model):
    ...     print(model[0].training)
    False
    >>> model[0].training, model[1].training
    (True, False)

    Args:
        model: A module, an object whose attributes are modules, or a method or a function that calls such.

    Yields:
        What is kept, so that it can be put back in between.

    Raises:
        RuleError: If a weight has no shape yet, because the first call would make it.
    """
    kept = ModelKept(model)
    modes = [(module, module.training) for module in kept.modules]
    weights = {id(weight): weight for module in kept.modules for weight in module.parameters()}
    gradients = [(weight, weight.grad) for weight in weights.values()]
    try:
        for module in kept.modules:
            module.training = False  # not by eval(), of which a module may have its own
        for weight, _ in gradients:
            weight.grad = None  # so that nothing can add to it in place
        yield kept
    finally:
        kept.restore()
        for module, is_training in modes:
            module.training = is_training
        for weight, gradient in gradients:
            weight.grad = gradient


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside: at sizes this small threads wait for one another longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ModelKept:
    """What a model holds, remembered: weights, buffers, other attributes, generators.

    Args:
        model: As of `model_kept`.
    """

    def __init__(self, model: Any) -> None:
        self.modules: list[nn.Module] = []
        self._owners: list[tuple[str, Any]] = []
        self._attributes: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self._tensors: dict[int, _KeptTensor] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._generators: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self._add(model, "")
        self._leaves = {name: [self._copy_of(leaf) for leaf in leaves] for name, leaves in self._states()}

    def restore(self, *, generators: bool = True) -> None:
        """Put back all but the modes and the gradients.

        Args:
            generators: Whether the generators that the model holds go back too.
        """
        for _, place, before in self._attributes:
            for name in [name for name in place if name not in before and name not in _OF_EVERY_MODULE]:
                del place[name]
            place.update(before)
        for container, content in self._containers.values():
            _refill(container, content)
        for tensor in self._tensors.values():
            tensor.restore()
        for generator, state in self._generators if generators else ():
            _set_generator(generator, state)

    def changed(self) -> list[str]:
        """The dotted names of attributes with tensors, no weights, that are other than before."""
        return [
            name
            for name, leaves in self._states()
            if any(isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter) for leaf in leaves)
            and (name not in self._leaves or not _are_alike(leaves, self._leaves[name]))
        ]

    def replaced(self) -> list[str]:
        """The dotted names of attributes that hold another object than before, one with attributes itself."""
        return [
            name + key
            for name, place, before in self._attributes
            for key, value in place.items()
            if key not in _OF_EVERY_MODULE and value is not before.get(key)
            if hasattr(value, "__dict__") and not isinstance(value, Tensor)
        ]

    def sizes(self) -> list[int]:
        """How long the axes are of tensors that are no weights, those that could count lanes."""
        tensors = [leaf for leaves in self._leaves.values() for leaf in leaves if isinstance(leaf, Tensor)]
        found = {size for tensor in tensors for size in tensor.shape if 1 < size <= _MOST_LANES}
        return sorted(found)[:_MOST_SIZES]

    def _add(self, owner: Any, name: str) -> None:
        if id(owner) in self._seen:
            return
        self._seen.add(id(owner))
        for part, value in _behind(owner):
            if part or isinstance(value, FUNCTIONS):
                self._add(value, f"{name}{part or _UNNAMED}.")
            else:
                self._keep(value, _UNNAMED)
        if not hasattr(owner, "__dict__"):
            return
        self._owners.append((name, owner))
        places = [vars(owner)]
        if isinstance(owner, nn.Module):
            self.modules.append(owner)
            if isinstance(owner, torch.jit.ScriptModule):  # whose attributes no Python sees; its tensors can be kept
                self._keep([*owner.parameters(), *owner.buffers()], name)
                places = []
            else:
                places += [owner._parameters, owner._buffers]
            for part, module in owner.named_children():
                self._add(module, f"{name}{part}.")
        for place in places:
            before = {key: value for key, value in place.items() if key not in _OF_EVERY_MODULE}
            self._attributes.append((name, place, before))
            for key, value in before.items():
                self._keep(value, f"{name}{key}.")

    def _keep(self, value: Any, name: str) -> None:
        """Remember what can be changed in place."""
        if isinstance(value, nn.Module):
            self._add(value, name)
        elif isinstance(value, (UninitializedBuffer, UninitializedParameter)):
            rule = "$model must have its weights, because its first call makes them"
            raise RuleError("model", rule, f"{name[:-1]} without a shape", way_out="call it once before")
        elif isinstance(value, nn.Parameter) and value.is_meta:
            rule = "$model must have its weights, and on the device `meta` there are none"
            raise RuleError("model", rule, name[:-1], way_out="build it on a device that computes, such as the CPU")
        elif isinstance(value, Tensor):
            if id(value) not in self._tensors and value.layout == torch.strided and not value.is_meta:
                self._tensors[id(value)] = _KeptTensor(value)
        elif isinstance(value, (list, tuple, dict, deque)):
            if id(value) in self._seen:
                return
            self._seen.add(id(value))
            if not isinstance(value, tuple):
                self._containers[id(value)] = (value, dict(value) if isinstance(value, dict) else list(value))
            for part in list(value.values()) if isinstance(value, dict) else value:
                self._keep(part, name)
        elif (state := _generator_state(value)) is not None:
            self._generators.append((value, state))

    def _states(self) -> Iterator[tuple[str, list[Any]]]:
        """Each attribute that is nested as a state is, with what is in it."""
        for name, owner in self._owners:
            if isinstance(owner, torch.jit.ScriptModule) or _UNNAMED in name:
                continue
            buffers = owner._buffers if isinstance(owner, nn.Module) else {}
            for key, value in [*vars(owner).items(), *buffers.items()]:
                if key in _OF_EVERY_MODULE or isinstance(value, (nn.Module, nn.Parameter)):
                    continue
                try:
                    leaves = leaves_of(value)
                except RuleError:  # no state: anything else
                    continue
                yield name + key, leaves

    def _copy_of(self, leaf: Any) -> Any:
        return self._tensors[id(leaf)].copy if id(leaf) in self._tensors else leaf


class _KeptTensor:
    """A tensor, its memory, and a copy of what was in it."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._memory = tensor, tensor.detach()
        self.copy = self._memory.clone()
        self._version = _version_of(tensor)

    def restore(self) -> None:
        tensor = self._tensor
        if tensor.data_ptr() != self._memory.data_ptr() or tensor.shape != self._memory.shape:
            tensor.data = self._memory
        elif self._version is not None and tensor._version == self._version:
            return
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            self._memory.copy_(self.copy)
        self._version = _version_of(tensor)


def _behind(owner: Any) -> Iterator[tuple[str, Any]]:
    """What a method, a function or an object with slots works on; with a name where it is an attribute of it."""
    if isinstance(owner, MethodType):
        yield "__self__", owner.__self__
    elif isinstance(owner, partial):
        yield "func", owner.func
        yield from (("", value) for value in (*owner.args, *owner.keywords.values()))
    elif isinstance(owner, FunctionType):
        known = {name: owner.__globals__.get(name) for name in owner.__code__.co_names}
        yield from (("", value) for value in known.values() if isinstance(value, nn.Module))
        yield from (("", cell.cell_contents) for cell in owner.__closure__ or () if _is_filled(cell))
    for kind in type(owner).__mro__:
        slots = vars(kind).get("__slots__", ()) if kind.__module__ != "builtins" else ()
        for name in (slots,) if isinstance(slots, str) else slots:
            if isinstance(value := getattr(owner, name, None), nn.Module):
                yield name, value


def _is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # the name is not set yet
        return False
    return True


def _version_of(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _refill(container: Any, content: Any) -> None:
    """Give a list or a dict its content back, where it is another one."""
    keys = content if isinstance(content, dict) else range(len(content))
    known = container if isinstance(container, dict) else range(len(container))
    if len(container) == len(content) and all(key in known and container[key] is content[key] for key in keys):
        return
    container.clear()
    if isinstance(container, dict):
        container.update(content)
    else:
        container.extend(content)


def _are_alike(one: list[Any], other: list[Any]) -> bool:
    if len(one) != len(other):
        return False
    for leaf, before in zip(one, other, strict=True):
        if isinstance(leaf, Tensor) != isinstance(before, Tensor):
            return False
        if isinstance(leaf, Tensor) and (leaf.shape != before.shape or not torch.equal(leaf, before)):
            return False
    return True


def _generator_state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    bits = getattr(value, "bit_generator", None)  # of numpy
    return getattr(bits, "state", None)


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state
