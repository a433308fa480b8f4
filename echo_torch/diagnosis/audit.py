"""A callback that watches a training: does each chunk begin where the lane's state ends?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from echo_torch.diagnosis.gaps import GapCounts
from echo_torch.diagnosis.stamps import Stamps, places_of_chunk


def carry_of(module: LightningModule) -> Any:
    """Where `EchoModule` keeps the carried state."""
    return getattr(module, "carry", None)


class StateAudit(Callback):
    """Compares where each lane's carried state ends with where the lane's next chunk begins.

    It finds skipped and repeated steps, a sequence carried into another, a batch with other lanes, and a state that
    somebody wrote between two training batches. It works with any module whose batches say where they stand:

        Trainer(callbacks=[StateAudit("raise", stamps=lambda batch: Stamps(step=batch["position"]))])

    Args:
        policy: "raise" stops at the first fault with a StateError, "warn" gives one StateWarning for each kind of
            fault, "count" says nothing.
        stamps: batch -> `Stamps`, of which step, sequence and starts are looked at.
        state: module -> the carried state, or None where there is none to look at. The check that nobody else
            writes it compares identity: give a function that returns the same object while nothing is assigned.

    Attributes:
        gaps: How often each gap occurred between two chunks; 0 is right, "other" counts hand-overs into another
            sequence. While training these are the lanes of this process, afterwards those of all.
        num_faults: How often something was wrong, lanes counted one by one; of all processes as `gaps`.

    Raises:
        RuleError: If the policy is unknown.
        StateError: From the training, under the policy "raise".
    """

    def __init__(
        self,
        policy: str = "warn",
        *,
        stamps: Callable[[Any], Stamps] = places_of_chunk,
        state: Callable[[LightningModule], Any] = carry_of,
    ) -> None:
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
