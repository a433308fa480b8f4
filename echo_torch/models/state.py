"""Recurrent state as a plain value: detached, and reset lane by lane.

A state is a tensor, or any nesting of tuples, named tuples, lists and dicts of tensors. None and numbers in it pass
through. Which axis of a tensor counts the lanes is found by making states of two and of three lanes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from numbers import Number
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from echo_torch.errors import RuleError
from echo_torch.randomness import random_state_kept


class LSTMState(NamedTuple):
    """What an LSTM remembers.

    >>> state = LSTMState(torch.zeros(1, 8, 50), torch.zeros(1, 8, 50))
    >>> state.hidden.shape
    torch.Size([1, 8, 50])

    Attributes:
        hidden: (layers, lanes, hidden_size), the output of the last step.
        cell: (layers, lanes, hidden_size), the memory behind it.
    """

    hidden: Tensor
    cell: Tensor


class HiddenState(NamedTuple):
    """What a GRU or a plain recurrent network remembers.

    Attributes:
        hidden: (layers, lanes, hidden_size), the output of the last step.
    """

    hidden: Tensor


class WindowState(NamedTuple):
    """What a network without recurrence remembers: the inputs of the last steps, as they were read.

    Attributes:
        inputs: (steps, lanes, input_size), the latest last; zeros where nothing was read.
    """

    inputs: Tensor


State = TypeVar("State")


class RecurrentModel(Protocol[State]):
    """What the training and the evaluation ask of a model; `EchoLSTM` is one."""

    def __call__(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (lanes, steps, vocabulary_size), or as its `encoding` says, and the state after the last step."""
        ...

    def initial_state(self, num_lanes: int, /) -> State:
        """The state of lanes that have read nothing yet."""
        ...


def detach_state(state: State) -> State:
    """A state with these values but without their history: no gradient goes back through them.

    >>> hidden, cells = detach_state((torch.ones(1, 2, 3, requires_grad=True), [torch.zeros(2, 3)]))
    >>> hidden.requires_grad, type(cells)
    (False, <class 'list'>)

    Args:
        state: A tensor or any nesting of tuples, named tuples, lists and dicts of tensors.

    Returns:
        A state of the same types.

    Raises:
        RuleError: If something else is in it.
    """
    if isinstance(state, Tensor):  # most states are one tensor or a tuple of them, and this is done at every update
        return cast(State, state.detach())
    return with_leaves(state, map(_detach, leaves_of(state)))


def reset_state(state: State, starts: Tensor, initial_state: Callable[[int], State] | None = None) -> State:
    """Give chosen lanes the state of a lane that has read nothing, and leave the others alone.

    >>> reset_state(HiddenState(torch.ones(1, 2, 3)), torch.tensor([True, False])).hidden
    tensor([[[0., 0., 0.],
             [1., 1., 1.]]])

    Nothing is multiplied: a lane that holds NaN is cured, and its neighbours never see it.

    Args:
        state: As of `detach_state`.
        starts: bool (lanes,), true where the lane is reset. It may live on the CPU whatever the state's device.
        initial_state: number of lanes -> their first state, as a model has it: the axis of the lanes is found by it,
            and its values are what a lane is reset to, with their gradient where they are learned. None: the lanes
            are axis 1 of tensors of rank 3, as in torch.nn's recurrent layers, and become zero.

    Returns:
        A state of the same types; the very same object where no lane is reset.

    Raises:
        RuleError: If `starts` is not bool, or not one value for each lane.
        RuleError: If it cannot be known which axis counts the lanes, or a tensor has none and not all are reset.
    """
    if initial_state is not None:
        return cast(State, StateForm(initial_state).reset(state, starts))
    check_starts(starts)
    leaves = leaves_of(state)
    _check_recurrent_layers(state, leaves, starts)
    if not starts.any():
        return state
    # The mask gets its own axes for layers and features: without them it would broadcast over the features
    # whenever lanes == hidden_size.
    mask = starts.view(1, -1, 1)
    return with_leaves(
        state, (leaf.masked_fill(mask.to(leaf.device), 0) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    )


def initial_state_of(model: object) -> Callable[[int], Any]:
    """A model's `initial_state`.

    Raises:
        RuleError: If it has none.
    """
    found = getattr(model, "initial_state", None)
    if not callable(found):
        raise RuleError(
            "model",
            "$model must have a method initial_state(num_lanes)",
            type(model).__name__,
            reason="because lanes begin with its state, and it tells which axis counts them",
            way_out="for nn.GRU's own state: `return torch.zeros(num_layers, num_lanes, hidden_size)`",
        )
    return cast("Callable[[int], Any]", found)


class StateForm:
    """What the states of a model look like, found once: which axis of each tensor counts the lanes.

        initial_state(2)    initial_state(3)    lane axis
        (1, 2, 50)          (1, 3, 50)          1
        (2, 4, 16, 8)       (3, 4, 16, 8)       0
        (8,)                (8,)                none: carried whole

    An axis that is empty in `initial_state` may grow, as that of a cache does.

    Args:
        initial_state: number of lanes -> their first state.
        lane_axes: The axes, where they are not to be found: one number for all tensors, or numbers nested as the
            state is, None for a tensor without lanes.
    """

    def __init__(self, initial_state: Callable[[int], Any], lane_axes: Any = None) -> None:
        self._initial_state = initial_state
        self._given = lane_axes
        self._names: list[str] = []
        self._is_named_alike = False

    @cached_property
    def lane_axes(self) -> tuple[int | None, ...]:
        """The axis of each leaf, in the order of `leaves_of`; None for one that has no lanes.

        Raises:
            RuleError: If it cannot be known.
        """
        return tuple(axis for axis, _ in self._form)

    @cached_property
    def _form(self) -> list[tuple[int | None, int]]:
        """Lane axis and rank of each leaf; rank -1 for what is no tensor."""
        with random_state_kept(), torch.no_grad():
            two, three = self._initial_state(2), self._initial_state(3)
        self._names = names_of(two, by_place=True)
        small, large, names = leaves_of(two), leaves_of(three), names_of(two)
        if names != names_of(three):
            raise RuleError(
                "initial_state",
                "$initial_state must nest its tensors alike for any number of lanes",
                f"{_in_words(names)} for 2 lanes and {_in_words(names_of(three))} for 3",
                way_out="give the lanes an axis of a tensor",
            )
        axes = [_lane_axis(*leaf) for leaf in zip(names, small, large, strict=True)] if self._given is None else None
        axes = self._checked_axes(two, small) if axes is None else axes
        return [(axis, leaf.ndim if isinstance(leaf, Tensor) else -1) for axis, leaf in zip(axes, small, strict=True)]

    def _checked_axes(self, state: Any, leaves: Sequence[Any]) -> list[int | None]:
        names = names_of(state)
        given = [self._given] * len(leaves) if isinstance(self._given, int) else leaves_of(self._given)
        if len(given) != len(leaves):
            raise RuleError(
                "lane_axes",
                f"$lane_axes must be one number, or nested as the state is: {_in_words(names)}",
                repr(self._given),
            )
        axes: list[int | None] = []
        for name, leaf, axis in zip(names, leaves, given, strict=True):
            if axis is None or not isinstance(leaf, Tensor):
                axes.append(None)
                continue
            if not -leaf.ndim <= axis < leaf.ndim or leaf.shape[axis] != 2:
                rule = f"$lane_axes must name the axis of {name} that counts the lanes"
                raise RuleError("lane_axes", rule, f"{axis}, and shape {tuple(leaf.shape)} for 2 lanes")
            axes.append(axis % leaf.ndim)
        return axes

    def fresh(self, num_lanes: int) -> Any:
        """The state of so many lanes that have read nothing yet."""
        return self._initial_state(num_lanes)

    def check(self, state: Any, num_lanes: int) -> None:
        """Refuse what is not a state of this form with so many lanes.

        Raises:
            RuleError: If it is not.
        """
        self._check_leaves(state, leaves_of(state), num_lanes)

    def detach(self, state: Any, num_lanes: int) -> Any:
        """As `detach_state`, of a state that is checked as `check` does."""
        leaves = leaves_of(state)
        self._check_leaves(state, leaves, num_lanes)
        return _rebuild(state, iter([_detach(leaf) for leaf in leaves]))

    def _check_leaves(self, state: Any, leaves: Sequence[Any], num_lanes: int) -> None:
        form = self._form
        if len(leaves) != len(form):
            rule = "$state must be nested as $initial_state's"
            raise RuleError("state", rule, f"{len(leaves)} fields where {len(form)} are expected")
        if not self._is_named_alike:
            self._check_names(state)
        for place, (leaf, (axis, rank)) in enumerate(zip(leaves, form, strict=True)):
            if not isinstance(leaf, Tensor) or leaf.ndim != rank:
                self._check_rank(state, place, leaf, rank)
            elif axis is not None and leaf.shape[axis] != num_lanes:
                raise RuleError(
                    "starts",
                    f"$starts must hold one value for each of the state's {leaf.shape[axis]} lanes",
                    f"shape ({num_lanes},), and {_name_of(state, place)} of shape {tuple(leaf.shape)}",
                    reason="because a state is never padded or cut to fit",
                    way_out="keep the number of rows, leaving some unused, or reset all lanes where it changes",
                )

    def _check_names(self, state: Any) -> None:
        """Refuse other keys; looked at once, because a model names its fields alike at every call."""
        names = names_of(state, by_place=True)
        if names != self._names:
            rule = f"$state must be nested as $initial_state's, {_in_words(self._names)}"
            raise RuleError("state", rule, _in_words(names))
        self._is_named_alike = True

    def _check_rank(self, state: Any, place: int, leaf: Any, rank: int) -> None:
        is_tensor = isinstance(leaf, Tensor)
        if is_tensor or rank >= 0:
            needed = f"have {rank} axes" if rank >= 0 else "be no tensor"
            rule = f"$state must {needed} in {_name_of(state, place)}, as $initial_state's"
            raise RuleError("state", rule, f"shape {tuple(leaf.shape)}" if is_tensor else type(leaf).__name__)

    def reset(self, state: Any, starts: Tensor) -> Any:
        """As `reset_state`, with this form's `initial_state`; where all lanes start, their number may have changed."""
        check_starts(starts)
        is_any = bool(starts.any())
        if is_any and starts.all():
            return self.fresh(len(starts))
        self.check(state, len(starts))
        if not is_any:
            return state
        pairs = zip(leaves_of(state), leaves_of(self.fresh(len(starts))), self.lane_axes, strict=True)
        return with_leaves(state, [self._reset_leaf(state, place, starts, *pair) for place, pair in enumerate(pairs)])

    def _reset_leaf(self, state: Any, place: int, starts: Tensor, leaf: Any, fresh: Any, axis: int | None) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if axis is None or leaf.shape != fresh.shape:
            name = _name_of(state, place)
            rule = (
                f"$starts must reset all lanes or none: {name} has no axis for lanes, so it is all lanes' or nobody's"
                if axis is None
                else f"$starts must reset all lanes or none: {name} has grown, and a lane alone cannot go back"
            )
            raise RuleError(
                "starts",
                rule,
                f"{int(starts.sum())} of {len(starts)} lanes to reset, {name} of shape {tuple(leaf.shape)} and of "
                f"{tuple(fresh.shape)} at first",
                way_out="give it an axis for lanes and a length that stays",
            )
        mask = starts.to(leaf.device).view([-1 if number == axis else 1 for number in range(leaf.ndim)])
        return torch.where(mask, fresh.to(leaf.dtype), leaf)

    def unpack(self, leaves: Sequence[Any]) -> Any:
        """The state with these leaves, on the device of `initial_state`.

        Raises:
            RuleError: If they are not of its shapes.
        """
        sizes = [
            leaf.shape[axis]
            for leaf, (axis, rank) in zip(leaves, self._form, strict=False)
            if axis is not None and isinstance(leaf, Tensor) and leaf.ndim == rank
        ]
        with random_state_kept(), torch.no_grad():
            template = self.fresh(sizes[0] if sizes else 1)
        needed = leaves_of(template)
        if len(leaves) != len(needed) or not all(map(_fits, leaves, needed)):
            rule = f"$carry of the checkpoint must be a state of this model, {_shapes(needed)}"
            raise RuleError("carry", rule, _shapes(leaves))
        moved = (
            leaf.to(old.device) if isinstance(leaf, Tensor) else leaf for leaf, old in zip(leaves, needed, strict=True)
        )
        return with_leaves(template, moved)


def pack_state(state: Any) -> list[Any]:
    """A state as a checkpoint holds it: its leaves, tensors on the CPU, numbers as Python's."""
    leaves = leaves_of(state)
    return [
        leaf.cpu() if isinstance(leaf, Tensor) else leaf.item() if hasattr(leaf, "item") else leaf for leaf in leaves
    ]


def leaves_of(state: Any) -> list[Any]:
    """The tensors, numbers and Nones of a state in their order; those of a dict in the order of its keys' names.

    >>> leaves_of({"b": (1, None), "a": [2.5]})
    [2.5, 1, None]

    Raises:
        RuleError: If something else is in it.
    """
    found: list[Any] = []
    _collect(state, found)
    return found


def _collect(state: Any, found: list[Any]) -> None:
    if isinstance(state, Tensor) or state is None:
        found.append(state)
    elif isinstance(state, (tuple, list)):
        for part in state:
            if isinstance(part, Tensor):  # not by a call of its own: it is done at every update
                found.append(part)
            else:
                _collect(part, found)
    elif isinstance(state, dict):
        for key in sorted(state, key=str):
            _collect(state[key], found)
    elif isinstance(state, Number):
        found.append(state)
    else:
        raise RuleError(
            "state",
            "$state must be a tensor, or tuples, lists and dicts of tensors, None and numbers",
            type(state).__name__,
            way_out="hand its tensors over as a dict",
        )


def with_leaves(state: State, leaves: Iterator[Any] | Sequence[Any]) -> State:
    """A state nested as this one, of the same types, with other leaves in the order of `leaves_of`."""
    return cast(State, _rebuild(state, iter(leaves)))


def _rebuild(state: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(state, (tuple, list)):
        parts = [next(leaves) if isinstance(part, Tensor) else _rebuild(part, leaves) for part in state]
        make = getattr(state, "_make", type(state))
        return make(parts)
    if isinstance(state, dict):
        rebuilt = copy.copy(state)  # an OrderedDict stays one, in its order
        rebuilt.update({key: _rebuild(state[key], leaves) for key in sorted(state, key=str)})
        return rebuilt
    return next(leaves)


def names_of(state: Any, name: str = "state", *, by_place: bool = False) -> list[str]:
    """How each leaf is reached: `state.hidden`, `state[0][1]`, `state['keys']`.

    Args:
        state: As of `leaves_of`.
        name: Of the whole.
        by_place: Whether the fields of a named tuple are numbered, so that a plain tuple has the same names.
    """
    if isinstance(state, dict):
        parts = [(f"{name}[{key!r}]", state[key]) for key in sorted(state, key=str)]
        return [leaf for place, part in parts for leaf in names_of(part, place, by_place=by_place)]
    if isinstance(state, (tuple, list)):
        fields = None if by_place else getattr(state, "_fields", None)
        words = [f".{field}" for field in fields] if fields else [f"[{place}]" for place in range(len(state))]
        parts = [(name + word, part) for word, part in zip(words, state, strict=True)]
        return [leaf for place, part in parts for leaf in names_of(part, place, by_place=by_place)]
    return [name]


def device_of(state: Any) -> torch.device:
    """Where the first tensor of a state lives; the CPU where there is none."""
    return next((leaf.device for leaf in leaves_of(state) if isinstance(leaf, Tensor)), torch.device("cpu"))


def check_starts(starts: Tensor) -> None:
    """Refuse what does not say for each lane whether it is reset.

    Raises:
        RuleError: If it is no bool tensor with one axis.
    """
    if not isinstance(starts, Tensor):
        raise RuleError("starts", "$starts must be a tensor of bool, (lanes,)", type(starts).__name__)
    if starts.dtype != torch.bool:
        raise RuleError("starts", "$starts must be bool, true where a lane is reset", f"dtype {starts.dtype}")
    if starts.ndim != 1:
        raise RuleError("starts", "$starts must have one axis, (lanes,)", f"shape {tuple(starts.shape)}")


def _detach(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _name_of(state: Any, place: int) -> str:
    return names_of(state)[place]


def _in_words(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _lane_axis(name: str, small: Any, large: Any) -> int | None:
    """Which axis is 2 long with two lanes and 3 with three; None where the shape is the same."""
    if not isinstance(small, Tensor) or not isinstance(large, Tensor) or small.shape == large.shape:
        return None
    shapes = f"{name} of shape {tuple(small.shape)} for 2 lanes and {tuple(large.shape)} for 3"
    if small.ndim != large.ndim:
        rule = "$initial_state must give tensors of the same rank for any number of lanes"
        raise RuleError("initial_state", rule, shapes)
    grown = [axis for axis, sizes in enumerate(zip(small.shape, large.shape, strict=True)) if sizes[0] != sizes[1]]
    if len(grown) > 1:
        rule = "$initial_state must give each tensor one axis that counts the lanes, and here several could be it"
        raise RuleError("initial_state", rule, shapes, way_out="say with $lane_axes which one it is")
    if (small.shape[grown[0]], large.shape[grown[0]]) != (2, 3):
        raise RuleError(
            "initial_state",
            "$initial_state must give the lanes an axis of their own",
            shapes,
            reason="because a lane that shares its axis with something else cannot be told apart",
            way_out="reshape the state so that one axis is as long as there are lanes",
        )
    return grown[0]


def _check_recurrent_layers(state: Any, leaves: Sequence[Any], starts: Tensor) -> None:
    """Refuse tensors whose lanes are not surely on axis 1, unless the state says so by its type."""
    num_lanes, is_known = len(starts), isinstance(state, (LSTMState, HiddenState, WindowState))
    for place, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            continue
        way_out = "give `model.initial_state` as $initial_state: the axis is found by it"
        found = f"shape {tuple(starts.shape)}, and {_name_of(state, place)} of shape {tuple(leaf.shape)}"
        if leaf.ndim != 3 or (leaf.shape[0] == leaf.shape[1] == num_lanes and not is_known):
            rule = "$state must say which axis counts its lanes; without $initial_state it is axis 1 of three, and no"
            raise RuleError("state", f"{rule} other may be as long as the lanes before it", found, way_out=way_out)
        if leaf.shape[1] != num_lanes:
            rule = f"$starts must hold one value for each of the state's {leaf.shape[1]} lanes"
            raise RuleError("starts", rule, found, way_out=way_out)


def _fits(leaf: Any, template: Any) -> bool:
    """Whether a saved leaf can stand where this one does; an axis that is empty at first may have grown."""
    if not isinstance(template, Tensor):
        return not isinstance(leaf, Tensor)
    if not isinstance(leaf, Tensor) or leaf.ndim != template.ndim:
        return False
    is_alike = (leaf.is_complex(), leaf.is_floating_point()) == (template.is_complex(), template.is_floating_point())
    return is_alike and all(size in (0, saved) for saved, size in zip(leaf.shape, template.shape, strict=True))


def _shapes(leaves: Sequence[Any]) -> str:
    words = (
        f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)
        for leaf in leaves
    )
    return ", ".join(words) or "nothing"
