"""What a run hangs onto Lightning: the metrics file, the checkpoint and the progress bar."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from echo_torch.files import whole_file

METRICS_COLUMNS = ("update", "sequences", "symbols", "targets", "loss", "accuracy")


class MetricsFile(Logger):
    """A Lightning logger that writes each row to a CSV file at once.

    Lightning's own CSVLogger holds 100 rows back and deletes an older file.

    Args:
        path: The file; it is made with the first row.
        drawn: num_chunks -> (sequences, symbols), how much fresh data so many chunks draw from.
    """

    def __init__(self, path: str | Path, drawn: Callable[[int], tuple[int, int]]) -> None:
        super().__init__()
        self._path = Path(path)
        self._drawn = drawn

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
        if step is None or metrics.keys().isdisjoint(METRICS_COLUMNS):
            return
        sequences, symbols = self._drawn(step)
        row = {"update": step, "sequences": sequences, "symbols": symbols, **metrics}
        row["targets"] = int(row.get("targets", 0))
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, extrasaction="ignore", lineterminator="\n")
        if not self._path.exists():
            writer.writeheader()
        writer.writerow(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are on disk whole, or not at all.

    Lightning's own way goes through the system's temporary folder; where that is another file system, a kill
    leaves a broken file under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint under its final name when it is complete."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            torch.save(checkpoint, file)


class SaveLast(Callback):
    """Keeps one checkpoint: the latest.

    Args:
        path: Its file.
        every_num_updates: How often it is written; always at the end of the training too.
    """

    def __init__(self, path: str | Path, every_num_updates: int = 1000) -> None:
        self._path = Path(path)
        self._every = every_num_updates

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write when it is time."""
        if trainer.global_step % self._every == 0 and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self._path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what training ended with."""
        trainer.save_checkpoint(self._path)


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
