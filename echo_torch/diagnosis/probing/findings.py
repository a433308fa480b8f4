"""What one bench found."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Findings:
    """What one bench found.

    Attributes:
        found: Whether each fault that was looked for is there.
        lanes: The lanes whose inputs were changed.
        influence: bool (changed lanes, lanes), as of `Probe`.
        unknown: What was not looked at, and why.
    """

    lanes: tuple[int, ...]
    influence: Tensor
    found: dict[str, bool] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def is_hopeless(self) -> bool:
        """Whether the model is so random that nothing else can be told."""
        return list(self.found) == ["random"]

    @property
    def faults(self) -> list[str]:
        """The names of the faults that are there."""
        return [name for name, is_there in self.found.items() if is_there]
