"""Gradients that are set to zero: nothing is to be seen there, and a network has many of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from echo_torch.diagnosis.watching.mode import RestingMode


class Zeroing:
    """Stands before `zero_grad` of optimisers and modules while it is open, and lets a mode rest meanwhile.

    Args:
        mode: Which rests.
    """

    def __init__(self, mode: RestingMode) -> None:
        self._mode = mode
        self._before: list[tuple[type, Callable[..., Any], Callable[..., Any]]] = []

    def begin(self) -> None:
        """Stand there from now on."""
        from torch.optim import Optimizer  # a second, spent by who trains anyway

        for owner in (Optimizer, nn.Module):
            before: Callable[..., Any] = vars(owner)["zero_grad"]
            around = self._around(before)
            self._before.append((owner, before, around))
            owner.zero_grad = around  # type: ignore[method-assign]

    def end(self) -> None:
        """Leave them as they were; where somebody has wrapped this meanwhile, it only hands on."""
        while self._before:
            owner, before, around = self._before.pop()
            if vars(owner)["zero_grad"] is around:
                owner.zero_grad = before  # type: ignore[attr-defined]

    def _around(self, before: Callable[..., Any]) -> Callable[..., Any]:
        mode = self._mode

        @functools.wraps(before)
        def zero_grad(*given: Any, **named: Any) -> Any:
            if mode.is_paused:
                return before(*given, **named)
            mode.rest()
            try:
                return before(*given, **named)
            finally:
                mode.go_on()

        return zero_grad
