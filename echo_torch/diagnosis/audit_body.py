"""The watch over a training, for a Trainer of either Lightning: all of `StateAudit` but its base class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from echo_torch.diagnosis.gaps import GapCounts
from echo_torch.diagnosis.stamps import Stamps, places_of_chunk

if TYPE_CHECKING:
    from pytorch_lightning import Callback as _Callback
    from pytorch_lightning import LightningModule, Trainer
else:
    _Callback = object


def carry_of(module: object) -> Any:
    """The state that a module carries: that of its `Carry`, or what its `carry` is; None where there is none."""
    carry = getattr(module, "carry", None)
    read_state = getattr(carry, "state", None)
    return read_state() if callable(read_state) else carry


class StateAuditBody(_Callback):
    """All of `StateAudit` but its base class."""

    def __init__(
        self,
        policy: str = "warn",
        *,
        stamps: Callable[[Any], Stamps] = places_of_chunk,
        state: Callable[[LightningModule], Any] = carry_of,
    ) -> None:
        super().__init__()
        self._counts = GapCounts(policy)
        self._stamps = stamps
        self._state = state

    @property
    def gaps(self) -> Counter[int | str]:
        """How often each gap occurred."""
        return self._counts.gaps

    @property
    def num_faults(self) -> int:
        """How often something was wrong."""
        return self._counts.num_faults

    def state_dict(self) -> dict[str, Any]:
        """What each rank has counted and where its lanes stand, for a checkpoint."""
        return self._counts.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint of as many ranks."""
        self._counts.load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew, or go on where a checkpoint was."""
        self._counts.begin()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Compare the batch with where the lanes stand."""
        self._counts.look(self._stamps(batch), self._state(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Remember which state the batch left."""
        self._counts.leave(self._state(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the histogram of gaps to the loggers, as `gap/0`, `gap/5`, ..., `gap/other`."""
        self._counts.end()
        histogram = {f"gap/{gap}": float(number) for gap, number in self.gaps.items()}
        for logger in trainer.loggers:
            logger.log_metrics(histogram, step=trainer.global_step)
