"""Calls of cells that are looked at together: what is done for one right after another takes half of the time.

A model that steps a cell by itself calls it many times, and in between the processor has other work, which leaves
nothing of the watch in its caches. So calls wait until the model returns, or something is done with what they left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from echo_torch.diagnosis.watching.functions import tensors_in

_MOST = 64  # that wait: they hold what was read and left


class Returned(NamedTuple):
    """A recurrent layer has returned, or raised: then there is no output.

    Attributes:
        module: The layer.
        inputs: What it was given.
        named: What it was given by name.
        output: What it gave.
        is_training: Whether it was in training mode.
        has_gradients: Whether gradients were recorded.
        is_closed: Whether nothing was followed inside of it.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    named: Mapping[str, Any]
    output: Any
    is_training: bool
    has_gradients: bool
    is_closed: bool


def returned(
    module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any, *, is_closed: bool
) -> Returned:
    """A recurrent layer returns now."""
    return Returned(module, inputs, named, output, module.training, torch.is_grad_enabled(), is_closed)


class Waiting:
    """The calls that wait, in their order.

    Args:
        look: Looks at one.
        rest: Is called when all have been looked at.

    Attributes:
        calls: As above.
    """

    def __init__(self, look: Callable[[Returned], None], rest: Callable[[], None]) -> None:
        self._look, self._rest = look, rest
        self.calls: list[Returned] = []
        self._left: set[int] = set()  # the ids of the tensors that they have left

    def add(self, call: Returned) -> None:
        """A cell has returned."""
        self.calls.append(call)
        self._left.update(map(id, tensors_in((call.output,))))
        if len(self.calls) == _MOST:
            self.look()

    def holds(self, tensor: Tensor) -> bool:
        """Whether one of the calls has left a tensor."""
        return id(tensor) in self._left

    def are_concerned(self, name: str, given: Iterable[Any], named: Mapping[str, Any]) -> bool:
        """Whether a function may write into what they read or left, or goes on from it, as a backward pass does."""
        is_writing = name == "__setitem__" or "out" in named or (name.endswith("_") and not name.endswith("__"))
        return is_writing or name == "backward" or any(map(self.holds, tensors_in((given, *named.values()))))

    def look(self) -> None:
        """Look at all of them now."""
        if self.calls:
            calls, self.calls = self.calls, []
            self._left.clear()
            for call in calls:
                self._look(call)
            self._rest()
