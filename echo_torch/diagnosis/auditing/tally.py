"""How often each gap occurred, and how often something was wrong: of this process, and of all that train together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from echo_torch.ranks import gather, own_rank

Counts = tuple[Sequence[tuple[int | str, int]], int]  # the gaps of a rank, and its faults


class Tally:
    """Counts of this rank, beside those of the others as far as they were gathered.

    Attributes:
        own: How often each gap occurred here.
        own_faults: How often something was wrong here.
    """

    def __init__(self) -> None:
        self.own: Counter[int | str] = Counter()
        self.own_faults = 0
        self._others: list[tuple[Counter[int | str], int]] = []

    @property
    def gaps(self) -> Counter[int | str]:
        """How often each gap occurred."""
        return sum((gaps for gaps, _ in self._others), self.own.copy())

    @property
    def num_faults(self) -> int:
        """How often something was wrong."""
        return self.own_faults + sum(faults for _, faults in self._others)

    def state_dict(self) -> dict[str, Any]:
        """What this rank has counted."""
        return {"gaps": list(self.own.items()), "faults": self.own_faults}

    def load(self, ranks: Sequence[dict[str, Any]]) -> None:
        """Count on from what each of as many ranks had counted."""
        own = ranks[own_rank()]
        self.own, self.own_faults = Counter(dict(own["gaps"])), own["faults"]
        self._take_others([(rank["gaps"], rank["faults"]) for rank in ranks])

    def gather(self) -> None:
        """Count those of all ranks. All of them must call it."""
        self._take_others(gather((list(self.own.items()), self.own_faults)))

    def forget_others(self) -> None:
        """Count this rank alone, until they are gathered again."""
        self._others = []

    def _take_others(self, ranks: Sequence[Counts]) -> None:
        own = own_rank()
        self._others = [(Counter(dict(gaps)), faults) for rank, (gaps, faults) in enumerate(ranks) if rank != own]
