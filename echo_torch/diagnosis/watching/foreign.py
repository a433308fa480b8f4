"""A state that no call has left: is it something that was made of an earlier one, or are its numbers drawn anew?"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from echo_torch.diagnosis.watching.lanes import Rows
from echo_torch.diagnosis.watching.marks import Marks

WORDS = {
    "mean": "the mean over the rows of a state that an earlier call left",
    "sum": "the sum over the rows of a state that an earlier call left",
    "multiple": "a multiple of a state that an earlier call left",
    "order": "a state that an earlier call left with its values in another order, as a view or a reshape gives them",
}
DRAWN = "drawn"  # anew: be it a noise that is meant, or in the place of a state that is not handed on
_DRAWS = {"normal", "normal_", "rand", "rand_like", "randn", "randn_like", "uniform_"}
_WAYS = {"T", "clone", "contiguous", "cpu", "cuda", "data", "detach", "div", "float", "mT", "mul", "permute", "to",
         "transpose", "unsqueeze", "view"}  # fmt: skip
_EARLIER = 3  # calls of a layer whose states are compared
_FEW_VALUES = 4  # that are alike by chance
_MOST_VALUES = 2**20  # of a state that is compared
_NEAR = 1e-4  # relative to the largest value
_PRECISION = 1e-2  # of a factor that comes from another precision


class Strangers:
    """Knows what states that no call has left are made of, as far as that can be seen."""

    def __init__(self) -> None:
        self._left: dict[int, deque[Sequence[Rows]]] = {}
        self._drawn: Marks[bool] = Marks()
        self._met: dict[int, set[bytes]] = {}  # of each layer, the draws that have entered

    def leave(self, layer: int, fields: Sequence[Rows]) -> None:
        """A training call of a layer has left a state."""
        if sum(field.numel for field in fields) <= _MOST_VALUES:
            left = self._left.get(layer)
            if left is None:
                left = self._left[layer] = deque(maxlen=_EARLIER)
            left.append(fields)

    def draw(self, name: str, given: Sequence[Any], result: Any) -> None:
        """A function has been called; numbers that it draws are known again as long as they only change their form."""
        if name in _DRAWS and isinstance(result, Tensor):
            self._drawn.set(result, True)
        elif name in _WAYS and given and self._drawn.of(given[0]) and isinstance(result, Tensor):
            is_whole = result.numel() == given[0].numel()
            if is_whole and not any(isinstance(part, Tensor) for part in given[1:]):
                self._drawn.set(result, True)

    def what(self, layer: int, fields: Sequence[Tensor], axis: int) -> str | None:
        """What a state is made of that no call has left: a key of `WORDS`, `DRAWN`, or None where it is unknown.

        Args:
            layer: Which it enters.
            fields: Its tensors.
            axis: Which of their axes counts the rows.
        """
        number = next((number for number, field in enumerate(fields) if bool(field.any())), None)
        if number is None:
            return None
        given = fields[number].detach()
        for left in reversed(self._left.get(layer, ())):
            if number < len(left) and left[number].numel >= _FEW_VALUES:
                found = relation(given, left[number].tensor(), axis)
                if found:
                    return found
        return DRAWN if self._drawn.of(fields[number]) and self._is_new(layer, given) else None

    def _is_new(self, layer: int, given: Tensor) -> bool:
        met, row = self._met.setdefault(layer, set()), given.cpu().flatten()[:16].float().numpy().tobytes()
        is_new = row not in met
        met.add(row)
        return is_new


def relation(given: Tensor, left: Tensor, axis: int) -> str | None:
    """What one state is of another: a key of `WORDS`, or None.

    >>> left = torch.arange(12.0).view(1, 3, 4)
    >>> relation(left.mean(1, keepdim=True).expand(1, 3, 4), left, 1), relation(left * 0.5, left, 1)
    ('mean', 'multiple')

    Args:
        given: What enters, floats.
        left: What an earlier call left.
        axis: Which of their axes counts the rows.
    """
    if given.device != left.device or not given.is_floating_point() or not bool(left.any()):
        return None
    given, left = given.double(), left.double()
    if given.shape == left.shape:
        factor = float((given * left).sum() / left.square().sum())
        if _are_near(given, factor * left):
            return "multiple" if abs(factor - 1) > _PRECISION else None
    if given.ndim == left.ndim and given.narrow(axis, 0, 1).shape == left.narrow(axis, 0, 1).shape:
        for word, whole in (("mean", left.mean(axis, keepdim=True)), ("sum", left.sum(axis, keepdim=True))):
            if _are_near(given, whole.expand_as(given)):
                return word
    is_other_order = given.numel() == left.numel() and torch.equal(given.flatten().sort()[0], left.flatten().sort()[0])
    return "order" if is_other_order else None


def foreign_in(words: Sequence[str | None]) -> tuple[str, int]:
    """What most strange states are, and how many are so.

    Args:
        words: Of each beginning of a training call what its state is, as of `Strangers.what`.

    Returns:
        The key of `WORDS` and the count; 0 where no finding is due.
    """
    counts = Counter(word for word in words if word in WORDS)
    if 2 * counts["multiple"] < len(words):  # a dropout that drops nothing by chance
        del counts["multiple"]
    return counts.most_common(1)[0] if counts else ("", 0)


def _are_near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _NEAR * one.abs().max())
