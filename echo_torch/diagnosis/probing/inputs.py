"""What a model reads: made for any number of lanes and steps, changed at one place, joined along the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echo_torch.errors import RuleError, plain, shorten
from echo_torch.models.state import leaves_of, names_of, with_leaves

EXAMPLE = "`inputs=lambda lanes, steps: torch.randn(lanes, steps, 3)`, with the axes and the numbers that $model reads"


@dataclass(frozen=True)
class _Axes:
    """Where one tensor of the inputs counts the lanes and the steps.

    Attributes:
        lane: The axis of the lanes; None for a tensor that all lanes share.
        step: The axis of the steps; None for one without steps.
        block: How many places of that axis belong to one step.
    """

    lane: int | None = None
    step: int | None = None
    block: int = 1


class Inputs:
    """Inputs of a model, and where each lane and each step stands in them.

        make(2, 5)    make(3, 5)    make(2, 7)    lane axis    step axis
        (2, 5, 4)     (3, 5, 4)     (2, 7, 4)     0            1
        (5, 2)        (5, 3)        (7, 2)        1            0
        (2,)          (3,)          (2,)          0            none

    Args:
        make: (lanes, steps) -> a tensor or any nesting of tuples, lists and dicts of tensors.
        device: Where the tensors go.
        vocabulary_size: Integers are changed among 0..n-1; None: among those that were drawn.

    Raises:
        RuleError: If `make` fails, or it cannot be known which axis counts what.
    """

    def __init__(
        self, make: Callable[[int, int], Any], device: torch.device | str = "cpu", vocabulary_size: int | None = None
    ) -> None:
        self._make, self._device, self._vocabulary_size = make, device, vocabulary_size
        small, wide, long = self.make(2, 5), self.make(3, 5), self.make(2, 7)
        names = names_of(small, "inputs")
        if not names == names_of(wide, "inputs") == names_of(long, "inputs"):
            raise RuleError(
                "inputs",
                "$inputs must nest its tensors alike for any number of lanes and steps",
                plain(f"{', '.join(names)} for (2, 5) and {', '.join(names_of(wide, 'inputs'))} for (3, 5)"),
                way_out="give the steps an axis of a tensor",
            )
        leaves = zip(names, leaves_of(small), leaves_of(wide), leaves_of(long), strict=True)
        self._axes = [_axes_of(*leaf) for leaf in leaves]
        if all(axes.lane is None for axes in self._axes):
            rule = "$inputs must have an axis that counts the lanes"
            raise RuleError("inputs", rule, _shapes(small), way_out=f"give {EXAMPLE}")
        self.has_steps = any(axes.step is not None for axes in self._axes)
        self._changed = self._which_change(leaves_of(small))

    @property
    def has_only_steps(self) -> bool:
        """Whether every tensor with lanes has steps too, so that two chunks can be joined."""
        return all(axes.step is not None for axes in self._axes if axes.lane is not None)

    @property
    def is_time_first(self) -> bool:
        """Whether the steps stand before the lanes in the first tensor that is changed."""
        axes = self._axes[self._changed[0]]
        return axes.lane is not None and axes.step is not None and axes.step < axes.lane

    def make(self, num_lanes: int, num_steps: int) -> Any:
        """Inputs of so many lanes and steps, on the device.

        Raises:
            RuleError: If that fails.
        """
        try:
            made = self._make(num_lanes, num_steps)
        except Exception as error:
            raise RuleError(
                "inputs",
                "$inputs must be a function (lanes, steps) -> inputs",
                plain(f"{type(error).__name__}: {error} for ({num_lanes}, {num_steps})"),
                way_out=f"such as {EXAMPLE}",
            ) from error
        return self._moved(made)

    def change(self, inputs: Any, lane: int, step: int | None = None) -> Any:
        """Copies of the inputs in which one lane reads something else.

        Args:
            inputs: As of `make`.
            lane: Which lane.
            step: Which step, counted from the end where it is negative; None: all steps.
        """
        leaves = leaves_of(inputs)
        for place in self._changed:
            leaves[place] = self._change_leaf(leaves[place], self._axes[place], lane, step)
        return with_leaves(inputs, leaves)

    def join(self, first: Any, second: Any) -> Any:
        """Two chunks as one, the second's steps after the first's."""
        pairs = zip(self._axes, leaves_of(first), leaves_of(second), strict=True)
        return with_leaves(
            first, [one if axes.step is None else torch.cat([one, other], dim=axes.step) for axes, one, other in pairs]
        )

    def with_gradient(self, inputs: Any) -> Any:
        """The inputs, those of floats as the beginning of a graph."""
        leaves = leaves_of(inputs)
        return with_leaves(inputs, [_as_beginning(leaf) for leaf in leaves])

    def in_words(self, inputs: Any) -> str:
        """The shapes."""
        return _shapes(inputs)

    def _moved(self, made: Any) -> Any:
        try:
            leaves = leaves_of(made)
        except RuleError as error:
            raise _no_tensors(error) from None
        try:
            return with_leaves(made, [leaf.to(self._device) if isinstance(leaf, Tensor) else leaf for leaf in leaves])
        except (RuntimeError, AssertionError) as error:  # which PyTorch raises where there is no such device
            rule = f"$device must be one that takes the inputs, and PyTorch says: {plain(str(error).splitlines()[0])}"
            raise RuleError("device", rule, plain(repr(str(self._device)))) from error

    def _which_change(self, leaves: list[Any]) -> list[int]:
        """The places of the tensors that are changed: no masks, unless there is nothing else."""
        found: dict[bool, list[int]] = {False: [], True: []}
        for place, (leaf, axes) in enumerate(zip(leaves, self._axes, strict=True)):
            if axes.lane is not None and (axes.step is not None or not self.has_steps):
                found[leaf.dtype == torch.bool].append(place)
        if places := found[False] or found[True]:
            return places
        rule = "$inputs must have a tensor with an axis for the lanes and one for the steps"
        raise RuleError("inputs", rule, _shapes(with_leaves(leaves, leaves)), way_out=f"give {EXAMPLE}")

    def _change_leaf(self, leaf: Tensor, axes: _Axes, lane: int, step: int | None) -> Tensor:
        changed = leaf.clone()
        there = changed.select(axes.lane or 0, lane)
        if step is not None and axes.step is not None:
            axis = axes.step - (axes.lane is not None and axes.lane < axes.step)
            step %= there.shape[axis] // axes.block
            there = there.narrow(axis, step * axes.block, axes.block)
        there.copy_(self._other_values(there.clone(), leaf))
        return changed

    def _other_values(self, values: Tensor, all_values: Tensor) -> Tensor:
        if values.dtype == torch.bool:
            return ~values
        if values.is_floating_point() or values.is_complex():
            # Not the same number everywhere, which a normalisation takes away; turned, for one-hot vectors.
            ramp = torch.linspace(1, 2, values.numel(), device=values.device).view(values.shape)
            return values.flatten().roll(1).view(values.shape) + ramp.to(values.dtype)
        lowest, count = int(all_values.min()), int(all_values.max() - all_values.min()) + 1
        if self._vocabulary_size is not None and lowest >= 0 and lowest + count <= self._vocabulary_size:
            lowest, count = 0, self._vocabulary_size
        return (values - lowest + 1) % max(count, 2) + lowest


def like_example(example: Any, *, is_time_first: bool) -> Callable[[int, int], Any]:
    """A function that makes inputs of any size like a batch that there is.

    Args:
        example: A tensor or any nesting; the first with two axes counts the lanes and the steps by them.
        is_time_first: Whether the steps stand first.

    Returns:
        (lanes, steps) -> inputs, values drawn between the least and the greatest of the example, masks as most of it,
        lengths as long as the steps.

    Raises:
        RuleError: If there is no tensor with two axes.
    """
    sizes, leaves = example_sizes(example, is_time_first=is_time_first), leaves_of(example)

    def make(num_lanes: int, num_steps: int) -> Any:
        return with_leaves(example, [_like(leaf, sizes, (num_lanes, num_steps), is_time_first) for leaf in leaves])

    return make


def example_sizes(example: Any, *, is_time_first: bool) -> tuple[int, int]:
    """(lanes, steps) of a batch that there is.

    Args:
        example: As of `like_example`.
        is_time_first: As of `like_example`.

    Raises:
        RuleError: If there is no tensor with two axes.
    """
    try:
        leaves = leaves_of(example)
    except RuleError as error:
        if any(isinstance(part, Tensor) for part in _parts_of(example)):
            raise _no_tensors(error) from None
        leaves = []
    ranked = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim >= 2]
    main = next((leaf for leaf in ranked if leaf.dtype != torch.bool), next(iter(ranked), None))
    if main is None:
        got = _shapes(example) if leaves and isinstance(leaves[0], Tensor) else _in_short(example)
        rule = "$inputs must be a function (lanes, steps) -> inputs, or a batch with an axis for lanes and one for "
        raise RuleError("inputs", f"{rule}steps", got, way_out=f"give {EXAMPLE}")
    return (main.shape[1], main.shape[0]) if is_time_first else (main.shape[0], main.shape[1])


def _parts_of(example: Any) -> list[Any]:
    if isinstance(example, dict):
        return list(example.values())
    return list(example) if isinstance(example, (tuple, list)) else []


def _in_short(example: Any) -> str:
    return f"{type(example).__name__} of shape {example.shape}" if hasattr(example, "shape") else shorten(example)


def _no_tensors(error: RuleError) -> RuleError:
    rule = "$inputs must give a tensor, or tuples, lists and dicts of tensors, None and numbers"
    return RuleError("inputs", rule, error.got, way_out="leave anything else out, or make it in $call")


def _like(leaf: Any, sizes: tuple[int, int], wanted: tuple[int, int], is_time_first: bool) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    order = (1, 0) if is_time_first else (0, 1)
    shape = list(leaf.shape)
    if leaf.ndim >= 2 and shape[0] == sizes[order[0]] and shape[1] == sizes[order[1]]:
        shape[:2] = wanted[order[0]], wanted[order[1]]
    elif shape and shape[0] == sizes[0]:
        shape[0] = wanted[0]
    elif shape and shape[0] == sizes[1]:
        shape[0] = wanted[1]
    if leaf.dtype == torch.bool:
        return torch.full(shape, bool(leaf.float().mean() > 0.5), device=leaf.device)
    if leaf.is_complex():
        return torch.randn(shape, dtype=leaf.dtype, device=leaf.device)
    if leaf.shape == (sizes[0],) and not leaf.is_floating_point() and int(leaf.max()) == sizes[1]:
        return torch.full(shape, wanted[1], dtype=leaf.dtype, device=leaf.device)  # lengths
    low, high = (leaf.min().item(), leaf.max().item()) if leaf.numel() else (0, 1)
    if leaf.is_floating_point():
        return (torch.rand(shape, device=leaf.device) * (high - low) + low).to(leaf.dtype)
    return torch.randint(int(low), int(high) + 1, shape, dtype=leaf.dtype, device=leaf.device)


def _axes_of(name: str, small: Any, wide: Any, long: Any) -> _Axes:
    """By the sizes at (2, 5), (3, 5) and (2, 7) lanes and steps."""
    if not all(isinstance(leaf, Tensor) for leaf in (small, wide, long)):
        return _Axes()
    shapes = f"{name} of shape {tuple(small.shape)} for (2, 5), {tuple(wide.shape)} for (3, 5)"
    shapes += f" and {tuple(long.shape)} for (2, 7)"
    if small.ndim == wide.ndim == long.ndim:
        lanes = [axis for axis in range(small.ndim) if small.shape[axis] != wide.shape[axis]]
        steps = [axis for axis in range(small.ndim) if small.shape[axis] != long.shape[axis]]
        is_known = len(lanes) <= 1 and len(steps) <= 1 and not set(lanes) & set(steps)
        is_known &= all((small.shape[axis], wide.shape[axis]) == (2, 3) for axis in lanes)
        block = small.shape[steps[0]] // 5 if steps else 1
        is_known &= all((small.shape[axis], long.shape[axis]) == (5 * block, 7 * block) for axis in steps)
        if is_known:
            return _Axes(lanes[0] if lanes else None, steps[0] if steps else None, block)
    rule = "$inputs must give the lanes an axis of their own, and the steps another"
    raise RuleError("inputs", rule, plain(shapes), way_out="reshape them in $call")


def _as_beginning(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
        return leaf.detach().clone().requires_grad_().clone()  # which may be changed in place, as a beginning may not
    return leaf


def _shapes(inputs: Any) -> str:
    found = zip(names_of(inputs, "inputs"), leaves_of(inputs), strict=True)
    words = [(name, str(tuple(leaf.shape))) for name, leaf in found if isinstance(leaf, Tensor)]
    return words[0][1] if len(words) == 1 else ", ".join(f"{name} {shape}" for name, shape in words) or "no tensor"
