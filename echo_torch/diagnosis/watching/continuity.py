"""Samples that numpy has put in another order: the values where they begin and end tell that they are not consecutive.

Numbers that change little from step to step tell where a sample goes on: with the one that lies behind it in the array,
or with another. The order itself cannot be read off the array, so this only keeps `watch` from taking the one for the
other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_FEWEST_SAMPLES = 32  # fewer are a batch, or no evidence
_FEWEST_STEPS = 4
_LARGER = 3.0  # times: a jump between samples that lie behind one another, beside one between those that were read so
_USUAL = 2.0  # times the jumps inside: as large may those be where a sample goes on


class Ends(NamedTuple):
    """Four steps of samples (samples, steps, ...), each (samples, values): with these they begin and end."""

    first: NDArray[np.floating[Any]]
    second: NDArray[np.floating[Any]]
    last_but_one: NDArray[np.floating[Any]]
    last: NDArray[np.floating[Any]]

    def go_on(self, apart: int) -> bool:
        """Whether each sample goes on in the one so many behind it, and clearly not in the next.

        >>> rows = np.sin(np.arange(960) / 9).reshape(4, 20, 12)  # four series, in twelve steps each
        >>> ends_of(rows.swapaxes(0, 1).reshape(80, 12)).go_on(4), ends_of(rows.reshape(80, 12)).go_on(4)
        (True, False)
        """
        if not 1 < abs(apart) < len(self.first):
            return False
        inside = np.median([_jump(self.first, self.second), _jump(self.last_but_one, self.last)])
        jump, beside = self._jump_to(apart), self._jump_to(1)
        return bool(jump <= _USUAL * inside and beside >= _LARGER * jump and beside > 0)

    def _jump_to(self, apart: int) -> float:
        if apart < 0:
            return _jump(self.last[-apart:], self.first[:apart])
        return _jump(self.last[:-apart], self.first[apart:])


def ends_of(whole: Tensor | NDArray[Any]) -> Ends | None:
    """The ends of samples of floats; None where there are too few, or of something else."""
    shape = tuple(whole.shape)
    if len(shape) < 2 or shape[0] < _FEWEST_SAMPLES or shape[1] < _FEWEST_STEPS:
        return None
    found = [_values_of(whole[:, step]) for step in (0, 1, -2, -1)]
    return Ends(*(each.reshape(shape[0], -1) for each in found)) if found[0].dtype.kind == "f" else None


def _values_of(step: Tensor | NDArray[Any]) -> NDArray[Any]:
    """A copy: the array may be gone when somebody asks."""
    if isinstance(step, Tensor):
        return np.array((step.detach().cpu().double() if step.is_floating_point() else step.cpu()).numpy())
    return np.array(step, np.float64 if step.dtype.kind == "f" else step.dtype)


def _jump(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The usual distance of two steps, over all samples."""
    return float(np.median(np.abs(other - one).mean(1)))
