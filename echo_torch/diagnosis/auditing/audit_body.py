"""The watch over a training, for a Trainer of either Lightning: all of `StateAudit` but its base class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from echo_torch.diagnosis.auditing.blocks import is_block
from echo_torch.diagnosis.auditing.gaps import UNSEEN, GapCounts
from echo_torch.diagnosis.auditing.listening import Listener
from echo_torch.diagnosis.auditing.snapshots import Snapshot, filled_lanes
from echo_torch.diagnosis.auditing.speaking import UNSEEN_STATE
from echo_torch.diagnosis.first_contact import missing_stamps
from echo_torch.diagnosis.stamps import Stamps, places_of_chunk
from echo_torch.models.state import leaves_of

if TYPE_CHECKING:
    from pytorch_lightning import Callback as _Callback
    from pytorch_lightning import LightningModule, Trainer
else:
    _Callback = object


def carry_of(module: object) -> Any:
    """The state that a module carries: that of its `Carry`, or what its `carry` is.

    Returns:
        None where it carries none now; `UNSEEN` where it has no `carry`, or one that is no state.
    """
    carry = getattr(module, "carry", UNSEEN)
    read_state = getattr(carry, "state", None)
    state = read_state() if callable(read_state) else carry
    return state if state is None or isinstance(state, (Tensor, tuple, list, dict)) else UNSEEN


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
        self._listener: Listener | None = None  # where there are layers to listen to
        self._is_copied = True  # whether states are copied; that of a `Carry` is written by nobody
        self._has_looked = False
        self._before: Snapshot | None = None  # the state before the sanity check
        self._checked: Snapshot | None = None  # and after it, if it is another

    @property
    def gaps(self) -> Counter[int | str]:
        """How often each gap occurred."""
        return self._counts.gaps

    @property
    def num_faults(self) -> int:
        """How often something was wrong."""
        return self._counts.num_faults

    @property
    def notes(self) -> list[str]:
        """What is no fault but worth knowing."""
        return self._counts.notes

    def state_dict(self) -> dict[str, Any]:
        """What each rank has counted and where its lanes stand, for a checkpoint."""
        return self._counts.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint of as many ranks."""
        self._counts.load_state_dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the recurrent layers, where no `Carry` tells which lanes start."""
        self._stop()
        self._has_looked, self._before, self._checked = False, None, None
        self._is_copied = not _has_carry(pl_module)
        self._counts.are_resets_told = not self._is_copied
        if self._is_copied:
            listener = Listener(pl_module)
            if listener.has_layers:
                listener.start()
                self._listener = listener

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the state before it."""
        self._before = _snapshot(self._early_state(pl_module))

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the state after it, if it is another."""
        state = self._early_state(pl_module)
        if state is UNSEEN or not filled_lanes(leaves_of(state), 1).any():
            return
        if self._before is None or not self._before.same_lanes(leaves_of(state), 1).all():
            self._checked = _snapshot(state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew, or go on where a checkpoint was."""
        self._counts.begin(self._checked)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Compare the batch with where the lanes stand."""
        stamps = self._stamps_of(batch)
        if is_block(stamps):
            self._counts.look_at_block(stamps, self._state(pl_module))
            return
        is_new_pass = batch_idx == 0 and (self._has_looked or (trainer is not None and trainer.current_epoch > 0))
        self._has_looked = True
        self._counts.look(
            stamps,
            self._state(pl_module),
            is_new_pass=is_new_pass,
            is_settled_later=self._listener is not None,
        )
        if self._listener is not None:
            num_lanes = np.shape(stamps.step)[0]
            self._listener.open(num_lanes, self._counts.hear, takes_restored=self._counts.takes_restored)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Remember which state the batch left."""
        state = self._state(pl_module)
        heard, is_read = None, True
        if self._listener is not None:
            is_connected = state is not UNSEEN and self._listener.is_connected(state)
            heard = self._listener.close()
            is_read = heard is not None or not self._listener.has_heard
            if is_read:
                self._counts.settle(heard, is_connected=is_connected)
            else:
                self._counts.skip()
        if heard is None and state is UNSEEN and is_read:
            self._counts.note("unseen", UNSEEN_STATE)
        self._counts.leave(state, is_copied=self._is_copied)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the state that the training has left, which the validation may write into and back."""
        self._counts.protect()
        if self._listener is not None:
            self._listener.abandon()  # a batch that the module has skipped

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the histogram of gaps to the loggers, as `gap/0`, `gap/5`, ..., `gap/other`."""
        self._counts.end()
        histogram = {f"gap/{gap}": float(number) for gap, number in self.gaps.items()}
        for logger in trainer.loggers:
            logger.log_metrics(histogram, step=trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._stop()

    def _early_state(self, module: LightningModule) -> Any:
        """The state before the training's first batch; a module may make the attribute only then."""
        try:
            return self._state(module)
        except AttributeError:
            return UNSEEN

    def _stop(self) -> None:
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    def _stamps_of(self, batch: Any) -> Stamps:
        if self._stamps is not places_of_chunk:
            return self._stamps(batch)
        try:
            return places_of_chunk(batch)
        except AttributeError:
            raise missing_stamps(batch, "StateAudit(stamps=lambda batch: {stamps})") from None


def _has_carry(module: LightningModule) -> bool:
    """Whether the state that the module shows as `carry` is held by a `Carry`, which is told where lanes start."""
    held = (getattr(module, "carry", None), getattr(module, "_carry", None))
    return hasattr(module, "carry") and any(
        all(callable(getattr(value, word, None)) for word in ("begin", "end", "state", "set_state")) for value in held
    )


def _snapshot(state: Any) -> Snapshot | None:
    return None if state is UNSEEN else Snapshot(state)
