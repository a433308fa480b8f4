"""States compared by value, lane by lane: whether a state is the one that was left, and where it is empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_torch.diagnosis.auditing.borders import Flags
from echo_torch.models.state import leaves_of


class Snapshot:
    """A state as it was when it was looked at.

    Args:
        state: As of `echo_torch.detach_state`.
        is_copied: Whether its values are copied, so that they are known after somebody has written into its tensors.
    """

    def __init__(self, state: Any, *, is_copied: bool = True) -> None:
        leaves = leaves_of(state)
        try:  # almost every state; one without a version, or with a graph that is not kept alive, takes longer
            self._versions: list[int | None] = [leaf._version for leaf in leaves]
            is_plain = True not in [leaf.requires_grad for leaf in leaves]
        except (AttributeError, RuntimeError):
            is_plain = False
        if not is_plain:
            leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            self._versions = [version_of(leaf) for leaf in leaves]
        self._leaves = leaves
        # Known by itself where its parts cannot be exchanged.
        self._state = state if is_plain and isinstance(state, (tuple, Tensor)) else None
        self._values: list[Any] | None = None
        if is_copied:
            self.copy()

    def copy(self) -> None:
        """Copy the values, where that has not been done and nobody has written into them."""
        if self._values is None and not self._is_overwritten():
            with torch.no_grad():
                self._values = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]

    def is_untouched(self, state: Any) -> bool:
        """Whether it is this very state and nobody has written into its tensors; quick, and not sure if false."""
        if state is None or state is not self._state:
            return False
        return [leaf._version for leaf in self._leaves] == self._versions

    def values(self) -> list[Any]:
        """Its leaves as they were, where they were copied; else as they are now."""
        return self._leaves if self._values is None else self._values

    def same_lanes(self, leaves: Sequence[Any], num_lanes: int) -> Flags:
        """Where all values are as they were: booleans (lanes,)."""
        same = np.ones(num_lanes, np.bool_)
        values = self.values()
        if len(leaves) != len(values) or (self._values is None and self._is_overwritten()):
            return ~same
        for leaf, old in zip(leaves, values, strict=True):
            same &= equal_lanes(leaf, old, num_lanes, lane_axis(leaf, num_lanes))
        return same

    def _is_overwritten(self) -> bool:
        return [version_of(leaf) for leaf in self._leaves] != self._versions


def version_of(leaf: Any) -> int | None:
    """How often somebody has written into a tensor; None where it does not count."""
    return leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else None


def lane_axis(leaf: Any, num_lanes: int) -> int | None:
    """Which axis of a state's tensor counts the lanes; None where that cannot be known.

    Of three axes, layers before lanes before features, it is the second, of two the first, as torch.nn has them;
    otherwise it is the only one that is as long.
    """
    if not isinstance(leaf, Tensor):
        return None
    axes = [axis for axis, size in enumerate(leaf.shape) if size == num_lanes]
    if len(axes) == 1:
        return axes[0]
    usual = {3: 1, 2: 0}.get(leaf.ndim)
    return usual if usual in axes and not (leaf.ndim == 3 and 0 in axes) else None


def filled_lanes(leaves: Sequence[Any], num_lanes: int, axes: Sequence[int | None] | None = None) -> Flags:
    """Where any value is other than zero: booleans (lanes,). Numbers and None are no state."""
    found = np.zeros(num_lanes, np.bool_)
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            axis = lane_axis(leaf, num_lanes) if axes is None else axes[place]
            found |= _by_lane(leaf != 0, num_lanes, axis, torch.any)
    return found


def equal_lanes(one: Any, other: Any, num_lanes: int, axis: int | None) -> Flags:
    """Where two leaves have the same values, NaN among them: booleans (lanes,). Of unequal lanes the first are it."""
    nowhere = np.zeros(num_lanes, np.bool_)
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return nowhere | (not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other))
    if one.ndim != other.ndim:
        return nowhere
    common = num_lanes
    if axis is not None and one.shape[axis] != other.shape[axis]:
        common = min(one.shape[axis], other.shape[axis])
        one, other = one.narrow(axis, 0, common), other.narrow(axis, 0, common)
    if one.shape != other.shape:
        return nowhere
    other = other.to(one.device)
    same = (one == other) | ((one != one) & (other != other))
    found = _by_lane(same, common, axis, torch.all)
    return np.concatenate([found, nowhere[len(found) :]])


def _by_lane(mask: Tensor, num_lanes: int, axis: int | None, reduce: Any) -> Flags:
    """Any or all over the other axes; where no axis counts these lanes, the same for all."""
    if axis is None or mask.shape[axis] != num_lanes:
        return np.full(num_lanes, bool(reduce(mask)))
    rows = mask.movedim(axis, 0).reshape(num_lanes, -1)
    found: Flags = reduce(rows, dim=1).cpu().numpy()
    return found
