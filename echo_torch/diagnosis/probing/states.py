"""Where a model's state is: handed in and out, or kept on the module; how a lane begins, and what a batch leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from echo_torch.errors import RuleError, plain, suggest
from echo_torch.models.state import StateForm, leaves_of, names_of, with_leaves

RESETS = ("reset", "reset_state", "reset_states", "reset_hidden", "reset_hidden_state")


class StatePlace(Protocol):
    """Where the state is."""

    is_held: bool

    def begin(self, num_lanes: int) -> Any:
        """What is handed to the model where lanes have read nothing yet."""
        ...

    def left(self, returned: Any) -> Any:
        """The state that a call has left."""
        ...

    def hand(self, state: Any) -> Any:
        """Put a state where the model finds it; what is handed to the model with the next inputs."""
        ...


class HandedState:
    """A state that goes into the model and comes out.

    Args:
        fresh: number of lanes -> the first state; None: the model makes its own.
        left_by: number of lanes -> a state that the model returned, where `fresh` gives no tensor.
    """

    is_held = False

    def __init__(self, fresh: Callable[[int], Any] | None, left_by: Callable[[int], Any]) -> None:
        self._fresh, self._left_by = fresh, left_by

    def begin(self, num_lanes: int) -> Any:
        """The first state, or None."""
        return None if self._fresh is None else self._fresh(num_lanes)

    def left(self, returned: Any) -> Any:
        """What the call returned."""
        return returned

    def hand(self, state: Any) -> Any:
        """The state itself."""
        return state

    @cached_property
    def makes_its_own(self) -> bool:
        """Whether the model begins with no tensor that has lanes, and makes its state itself."""
        sizes = [[leaf.shape for leaf in leaves_of(self.begin(lanes)) if isinstance(leaf, Tensor)] for lanes in (2, 3)]
        return sizes[0] == sizes[1]

    @cached_property
    def form(self) -> StateForm:
        """What its states look like; zeros, where the model makes its own."""
        fresh = self._fresh
        return StateForm(self._zeros if fresh is None or self.makes_its_own else fresh)

    def _zeros(self, num_lanes: int) -> Any:
        state = self._left_by(num_lanes)
        leaves = leaves_of(state)
        return with_leaves(state, [torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves])


class HeldState:
    """A state that the module keeps in attributes of its own.

    Args:
        model: The module.
        names: Dotted names of the attributes.
        is_found: Whether they were found by a call, which may have made them.

    Raises:
        RuleError: If there is no such attribute.
    """

    is_held = True

    def __init__(self, model: Any, names: list[str], *, is_found: bool) -> None:
        self.names = names
        self._places = [_owner_of(model, name, is_found) for name in names]
        owners = [owner for owner, _ in self._places]
        self.reset, self.how = _reset_of(model, owners)
        self._fresh, name = fresh_of(model) if self.reset is None and len(names) == 1 else (None, "")
        self.how = f"model.{name}(lanes)" if name else self.how
        self._is_none = False

    @property
    def may_be_none(self) -> bool:
        """Whether it is to be tried to begin with None, because no method says how."""
        return self.reset is None and self._fresh is None

    def begin_with_none(self, is_none: bool) -> None:
        """Begin with None in the attributes, or with what stands there."""
        self._is_none, self.how = is_none, "None" if is_none else "what stands there"

    def begin(self, num_lanes: int) -> None:
        """Empty the state as the model does it itself; else with None, or with what stands there."""
        if self.reset is not None:
            self.reset()
        elif self._fresh is not None:
            self.hand(self._fresh(num_lanes))
        elif self._is_none:
            for owner, name in self._places:
                setattr(owner, name, None)

    def left(self, returned: Any) -> Any:
        """What stands in the attributes: the value of one, a dict of several."""
        del returned
        values = [getattr(owner, name, None) for owner, name in self._places]
        return values[0] if len(values) == 1 else dict(zip(self.names, values, strict=True))

    def hand(self, state: Any) -> None:
        """Set the attributes; None means that they are set already."""
        if state is None:
            return
        values = [state] if len(self._places) == 1 else [state[name] for name in self.names]
        for (owner, name), value in zip(self._places, values, strict=True):
            setattr(owner, name, value)


def fresh_of(model: Any) -> tuple[Callable[[int], Any] | None, str]:
    """A model's own first state, and what it is called: `initial_state`, else `init_hidden` and the like."""
    for name in ("initial_state", "init_hidden", "init_state", "zero_state", "get_initial_state"):
        found = getattr(model, name, None)
        if callable(found) and _takes(found, 1):
            return found, name
    return None, ""


def is_like(state: Any, other: Any) -> bool:
    """Whether two states are nested alike and hold tensors in the same places."""
    try:
        one, two = names_of(state, by_place=True), names_of(other, by_place=True)
        pairs = list(zip(leaves_of(state), leaves_of(other), strict=False))
    except RuleError:
        return False
    return one == two and all(isinstance(leaf, Tensor) == isinstance(like, Tensor) for leaf, like in pairs)


def num_features(state: Any, lane_axes: tuple[int | None, ...]) -> list[int]:
    """The last sizes of a state's tensors beside that of the lanes, each once."""
    found = []
    for leaf, axis in zip(leaves_of(state), lane_axes, strict=True):
        if isinstance(leaf, Tensor) and axis is not None:
            sizes = [size for place, size in enumerate(leaf.shape) if place != axis]
            found += sizes[-1:]
    return list(dict.fromkeys(found))


def _owner_of(model: Any, dotted: str, is_found: bool) -> tuple[Any, str]:
    """The object that has the attribute, and its name there."""
    owner, *rest = model, *dotted.split(".")
    for place, name in enumerate(rest):
        if not hasattr(owner, name) and not (is_found and place == len(rest) - 1):
            known = [key for key in vars(owner) if not key.startswith("_") and key != "training"]
            known += [key for key, _ in getattr(owner, "named_children", list)()]
            whose = ".".join(rest[:place]) or type(model).__name__
            rule = f"$state must name an attribute of the model, and {plain(whose)} has no {plain(name)!r}"
            raise RuleError("state", rule, f"{dotted!r}{suggest(name, known)}", way_out=_ways(known))
        if place < len(rest) - 1:
            owner = getattr(owner, name)
    return owner, rest[-1]


def _ways(known: list[str]) -> str:
    return f"it has {plain(', '.join(known[:8]))}" if known else ""


def _reset_of(model: Any, owners: list[Any]) -> tuple[Callable[[], Any] | None, str]:
    """The method that empties the state, the model's before that of the part that keeps it."""
    for owner in [model, *owners]:
        for name in RESETS:
            found = getattr(owner, name, None)
            if callable(found) and _takes(found, 0):
                return found, f"{'model' if owner is model else type(owner).__name__}.{name}()"
    return None, "what stands there"


def _takes(function: Callable[..., Any], number: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(number))
    except (TypeError, ValueError):
        return False
    return True
