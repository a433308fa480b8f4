"""The latest checkpoint of a training, and its clean end at Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.io import TorchCheckpointIO

from echo_torch.errors import ENDINGS, Interrupted
from echo_torch.files import FORMAT, Place
from echo_torch.training.bodies import weights_error
from echo_torch.training.checkpoints import RUN_KEY, Checkpoint, read_checkpoint, write_checkpoint
from echo_torch.training.metrics_file import MetricsFile

UPDATES_BETWEEN_QUESTIONS = 10


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are on disk whole, or not at all, and are read without running anything in them.

    Lightning's own way goes through the system's temporary folder; where that is another file system, a kill
    leaves a broken file under the final name. It also fetches URLs.

    Args:
        start: A checkpoint that was read already, from which the training goes on.
    """

    def __init__(self, start: Checkpoint | None = None) -> None:
        super().__init__()
        self._start = start

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint under its final name when it is complete."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # as Lightning's own does
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU, whatever the arguments say; one that was read before is not read again."""
        if self._start is not None and self._start.contents and self._start.path == Path(path):
            return self._start.take()
        return read_checkpoint(path)


class SaveLast(Callback):
    """Keeps the latest checkpoint, and the one before, and stops cleanly at Ctrl-C, SIGTERM and SIGHUP.

    Of those the first lets the update end (with several processes: the next tenth one), saves, and raises `Interrupted`
    from the training; a second Ctrl-C stops at once.

    Args:
        path: Its file.
        every_num_updates: How often it is written; at the end of the training too.
        validate_every: Updates between two validations, None: there is none. Where one is due, it comes first, so that
            a resumed training need not do it again.
        note: What goes into the checkpoint under "run", beside `seconds`, the time that the training has taken.
        place: The directory of the run; nothing is written where another one has its name. None: whatever has it.

    Attributes:
        has_begun: Whether an update was made.
    """

    def __init__(
        self,
        path: str | Path,
        every_num_updates: int = 500,
        *,
        validate_every: int | None = None,
        note: Mapping[str, Any] | None = None,
        place: Place | None = None,
    ) -> None:
        self._path = Path(path)
        self._place = place
        self._every = every_num_updates
        self._validate_every = validate_every
        self._note = dict(note or {})
        self._signal: int | None = None
        self._before: dict[int, Any] = {}
        self._is_due = False
        self.has_begun = False
        self._seconds_before = 0.0
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the training has taken, that before its resumption included."""
        return self._seconds_before + time.perf_counter() - self._begin

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in the note."""
        checkpoint["format"] = FORMAT
        checkpoint[RUN_KEY] = {**self._note, "seconds": self.seconds}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the time on."""
        self._seconds_before = float(checkpoint.get(RUN_KEY, {}).get("seconds", 0.0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take Ctrl-C, SIGTERM and SIGHUP over."""
        self._signal, self._before = None, {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDINGS:
            # A shell has what runs in the background ignore Ctrl-C, nohup the end of the terminal, and so it shall.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note_signal)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._note_signal:
                signal.signal(number, before)
        self._before = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.on_train_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write when it is time."""
        update = trainer.global_step
        self.has_begun = True
        self._is_due = update % self._every == 0 or update == trainer.max_steps
        if self._validate_every is None or update % self._validate_every != 0:
            self._finish(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was put off."""
        if not trainer.sanity_checking:
            self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        is_interrupted = self._signal is not None
        if trainer.world_size > 1:
            # All must stop at the same update. To ask the others costs as much as half an update.
            may_stop = self._is_due or trainer.global_step % UPDATES_BETWEEN_QUESTIONS == 0
            is_interrupted = may_stop and trainer.strategy.reduce_boolean_decision(is_interrupted, all=False)
        if self._is_due or is_interrupted:
            self.save(trainer, module)
        if is_interrupted:
            raise Interrupted(self._signal or signal.SIGINT)

    def save(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the checkpoint, after the rows that it counts are on disk. All ranks must call it.

        Raises:
            LossError: If a weight is not finite.
            WriteError: If something cannot be written.
        """
        _check_weights(module, trainer.global_step)
        if self._place is not None:
            self._place.check()
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.to_disk()
        trainer.save_checkpoint(self._path)

    def _note_signal(self, number: int, frame: object) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number


def _check_weights(module: LightningModule, update: int) -> None:
    if not all(bool(weights.isfinite().all()) for weights in module.parameters()):
        raise weights_error(update)
