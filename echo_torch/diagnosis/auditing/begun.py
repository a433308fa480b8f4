"""A batch that has begun, until it is known which of its lanes go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from echo_torch.diagnosis.auditing.borders import Border, Flags
from echo_torch.diagnosis.auditing.snapshots import filled_lanes


@dataclass
class BegunBatch:
    """What is known of it.

    Attributes:
        border: Where its lanes begin and end.
        leaves: Of the state that it begins with; None: unseen.
        is_new_pass: Whether the loader begins anew with it.
        said_to_start: Lanes that are reset before the first column, as the stamps say.
        is_told: Whether lanes go on wherever the stamps say so, with an empty state too.
        is_handed: Lanes that go on, as far as is known.
        written: Where somebody else has written the state that is shown.
        is_from_check: Whether that was the sanity check.
        is_reported: Whether it was said.
    """

    border: Border
    leaves: list[Any] | None
    is_new_pass: bool
    said_to_start: Flags
    is_told: bool
    is_handed: Flags
    written: Flags
    is_from_check: bool = False
    is_reported: bool = False

    @property
    def num_lanes(self) -> int:
        """How many lanes it has."""
        return len(self.border.first)

    def is_filled(self) -> Flags:
        """Where the state that is shown is not empty."""
        return filled_lanes(self.leaves or [], self.num_lanes)
