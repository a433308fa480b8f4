"""The watch over a fit, for a Trainer of either Lightning: all of `StateWatch` but its base class."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from echo_torch.diagnosis.data_path.reaching import DEFAULT_MAX_LAG, Reach
from echo_torch.diagnosis.stamps import Stamps, placed_chunk
from echo_torch.diagnosis.watching.findings import Finding
from echo_torch.diagnosis.watching.kinds import check_kinds
from echo_torch.diagnosis.watching.watcher import DEFAULT_UPDATES, Watch
from echo_torch.errors import RuleError

if TYPE_CHECKING:
    from pytorch_lightning import Callback as _Callback
    from pytorch_lightning import LightningModule, Trainer
else:
    _Callback = object

_NO_FIT = "No fit has been watched yet."


class StateWatchBody(_Callback):
    """All of `StateWatch` but its base class."""

    def __init__(
        self,
        *,
        updates: int = DEFAULT_UPDATES,
        intended: Iterable[str] = (),
        stamps: Callable[[Any], tuple[Tensor, Stamps] | None] | None = None,
    ) -> None:
        super().__init__()
        self._options: dict[str, Any] = {"updates": updates, "intended": sorted(check_kinds("intended", intended))}
        Watch(**self._options)  # refuses what is wrong before a fit begins
        if stamps is not None and not callable(stamps):
            way_out = "hand over a function: lambda batch: (batch['input'], Stamps(step=batch['position']))"
            raise RuleError("stamps", "$stamps must be a function of a batch", type(stamps).__name__, way_out=way_out)
        self._stamps = stamps or placed_chunk
        self._watch: Watch | None = None
        self._is_open = False
        self._ranks = (0, 1)  # this one, and how many

    @property
    def seen(self) -> Watch | None:
        """The watch over the last fit, also while it runs; None before the first."""
        return self._watch

    @property
    def faults(self) -> list[Finding]:
        """The faults that were seen in the last fit."""
        return [] if self._watch is None else self._watch.faults

    @property
    def intended(self) -> list[Finding]:
        """Findings of kinds that are meant to be so."""
        return [] if self._watch is None else self._watch.intended

    @property
    def unknown(self) -> list[str]:
        """What could not be seen, in sentences."""
        if self._watch is None:
            return [_NO_FIT]
        rank, number = self._ranks
        others = f"Rank {rank} of {number} speaks of its own rows alone; of the other ranks' nothing is known here."
        return [*self._watch.unknown, *([others] if number > 1 else [])]

    def lines(self) -> list[str]:
        """All of it for people, as of `watch`."""
        if self._watch is None:
            return [f"unknown: {_NO_FIT}"]
        own = self._watch.lines()
        return [*own, *(f"unknown: {text}" for text in self.unknown[len(self._watch.unknown) :])]

    @property
    def findings(self) -> dict[str, Any]:
        """The faults and what is unknown as plain values, as of `watch`."""
        found = {"findings": []} if self._watch is None else self._watch.findings
        return {**found, "unknown": self.unknown}

    def reach(
        self,
        layer: str | None = None,
        lag: int | None = None,
        *,
        vocabulary_size: int | None = None,
        max_lag: int = DEFAULT_MAX_LAG,
    ) -> Reach | None:
        """What the rows of a layer had read, as of `watch`; None before a fit."""
        if self._watch is None:
            return None
        return self._watch.reach(layer, lag, vocabulary_size=vocabulary_size, max_lag=max_lag)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch the module."""
        self._close()
        self._ranks = trainer.global_rank, trainer.world_size
        self._watch = Watch(pl_module, **self._options).__enter__()
        self._is_open = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Hear where the rows of a batch stand, if it says so."""
        found = self._stamps(batch)
        if self._watch is not None and found is not None:
            self._watch.place(*found)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Watch no more, and report what was seen until now."""
        self._end()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch no more, and report."""
        self._end()

    def __getstate__(self) -> dict[str, Any]:
        """Without what was seen, which belongs to this process."""
        return {**self.__dict__, "_watch": None, "_is_open": False}

    def _close(self) -> None:
        if self._watch is not None and self._is_open:
            self._is_open = False
            self._watch.__exit__(None, None, None)

    def _end(self) -> None:
        if not self._is_open:
            return
        self._close()
        rank, number = self._ranks
        if rank == 0:
            whose = f" (rank {rank} of {number}, of its own rows)" if number > 1 else ""
            print("\n".join([f"StateWatch{whose}:", *(f"  {line}" for line in self.lines())]), file=sys.stderr)
