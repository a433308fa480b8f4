"""What a run hangs onto Lightning: the metrics file, the checkpoint and the progress bar."""

from __future__ import annotations

import csv
import io
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from echo_torch.files import append_text
from echo_torch.ranks import Interrupted
from echo_torch.training.checkpoints import read_checkpoint, write_checkpoint
from echo_torch.training.module import LossError

METRICS_COLUMNS = ("update", "sequences", "symbols", "targets", "loss", "accuracy")
RUN_KEY = "run"
UPDATES_BETWEEN_QUESTIONS = 10


class MetricsFile(Logger):
    """A Lightning logger that writes each row to a CSV file at once.

    Lightning's own CSVLogger holds 100 rows back and deletes an older file.

    Args:
        path: The file; it is made with the first row.
        drawn: num_chunks -> (sequences, symbols), how much fresh data so many chunks draw from.
        prefix: Of the metrics that are meant for this file, "validation_"; the columns are named without it.
    """

    def __init__(self, path: str | Path, drawn: Callable[[int], tuple[int, int]], prefix: str = "") -> None:
        super().__init__()
        self._path = Path(path)
        self._drawn = drawn
        self._prefix = prefix

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row.

        Args:
            metrics: Some of the columns; a missing one stays empty.
            step: Updates made so far.
        """
        columns = {f"{self._prefix}{name}": name for name in METRICS_COLUMNS}
        values = {columns[name]: value for name, value in metrics.items() if name in columns}
        if step is None or not values:
            return
        sequences, symbols = self._drawn(step)
        row = {"update": step, "sequences": sequences, "symbols": symbols, **values}
        row["targets"] = int(row.get("targets", 0))
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n")
        if not self._path.exists():
            writer.writeheader()
        writer.writerow(row)
        append_text(self._path, text.getvalue())


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are on disk whole, or not at all, and are read without running anything in them.

    Lightning's own way goes through the system's temporary folder; where that is another file system, a kill
    leaves a broken file under the final name. It also fetches URLs.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint under its final name when it is complete."""
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU, whatever the arguments say."""
        return read_checkpoint(path)


class SaveLast(Callback):
    """Keeps the latest checkpoint, and the one before, and stops cleanly at Ctrl-C and SIGTERM.

    Of those the first lets the update end (with several processes: the next tenth one), saves, and raises `Interrupted`
    from the training; a second Ctrl-C stops at once.

    Args:
        path: Its file.
        every_num_updates: How often it is written; at the end of the training too.
        validate_every: Updates between two validations, None: there is none. Where one is due, it comes first, so that
            a resumed training need not do it again.
        note: What goes into the checkpoint under "run", beside `seconds`, the time that the training has taken.

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
    ) -> None:
        self._path = Path(path)
        self._every = every_num_updates
        self._validate_every = validate_every
        self._note = dict(note or {})
        self._signal: int | None = None
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
        checkpoint[RUN_KEY] = {**self._note, "seconds": self.seconds}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the time on."""
        self._seconds_before = float(checkpoint.get(RUN_KEY, {}).get("seconds", 0.0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take Ctrl-C and SIGTERM over; Lightning gives them back when the training ends."""
        self._signal = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell has what runs in the background ignore Ctrl-C, and so it shall.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note_signal)

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
            _check_weights(module, trainer.global_step)
            trainer.save_checkpoint(self._path)
        if is_interrupted:
            raise Interrupted(self._signal or signal.SIGINT)

    def _note_signal(self, number: int, frame: object) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number


def _check_weights(module: LightningModule, update: int) -> None:
    if not all(bool(weights.isfinite().all()) for weights in module.parameters()):
        raise LossError(f"The weights are not finite any more after update {update}. A smaller learning rate may help.")


class Bar(ProgressBar):
    """One line while it trains: share done, updates per second, time left, loss and accuracy.

    Args:
        label: What stands before it.
        file: Where it is drawn; None: standard error.
    """

    REFRESH_SECONDS = 0.1

    def __init__(self, label: str, file: IO[str] | None = None) -> None:
        super().__init__()
        self._label = label
        self._file = file
        self._bar: tqdm[Any] | None = None
        self._next = 0.0

    def disable(self) -> None:
        """Lightning switches the bar off on all ranks but the first."""
        self._label = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the line."""
        if self._label:
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._bar = tqdm(
                total=total,
                initial=trainer.global_step,
                desc=self._label,
                unit=" updates",
                file=self._file,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} updates, {rate_noinv_fmt}, "
                "{remaining} left{postfix}",
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Redraw, at most ten times a second: a redraw costs as much as an update."""
        if self._bar is not None and (now := time.monotonic()) >= self._next:
            self._next = now + self.REFRESH_SECONDS
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the line."""
        self._close(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the cursor on a line of its own."""
        self._close(trainer)

    def _draw(self, trainer: Trainer) -> None:
        assert self._bar is not None
        shown = trainer.callback_metrics
        if "loss" in shown:
            text = f"loss {shown['loss']:.3f}, accuracy {shown['accuracy']:.1%}"
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def _close(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._draw(trainer)
            self._bar.refresh()
            self._bar.close()
            self._bar = None
