"""One line while it trains: a bar, or a sentence that says how long it takes."""

from __future__ import annotations

import sys
import time
from typing import IO, Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from echo_torch.waiting import Heard, Waiting, size_in_words


class Bar(ProgressBar):
    """One line while it trains: share done, accuracy, time left, loss, updates and how many a second.

    A narrow terminal shows its beginning, so what matters most comes first.

    Args:
        label: What is trained.
        beside: What an accuracy is seen beside, "chance 1.0%, ceiling 100.0%".
        file: Where it is drawn; None: standard error.
    """

    REFRESH_SECONDS = 0.1

    def __init__(self, label: str, file: IO[str] | None = None, *, beside: str = "") -> None:
        super().__init__()
        self._label = label
        self._beside = f" ({beside})" if beside else ""
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
            file: Any = self._file or sys.stderr
            self._bar = tqdm(
                total=total,
                initial=trainer.global_step,
                desc=f"{self._label}: the first update is being made",
                unit=" updates",
                file=file and Heard(file),
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% |{bar:6}| {desc}, {remaining} left{postfix}, "
                "{n_fmt}/{total_fmt} updates, {rate_noinv_fmt}",
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
        accuracy = f": accuracy {shown['accuracy']:.1%}{self._beside}" if "accuracy" in shown else ""
        self._bar.set_description_str(f"{self._label}{accuracy}", refresh=False)
        self._bar.set_postfix_str(f"loss {shown['loss']:.3f}" if "loss" in shown else "", refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def _close(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._draw(trainer)
            self._bar.refresh()
            self._bar.close()
            self._bar = None


class Line(Callback):
    """A sentence after two seconds: how many updates are made, and how long all of them take.

    When it is said, this callback leaves the Trainer: each costs every update a hundredth of its time.
    """

    def __init__(self) -> None:
        self._waiting: Waiting | None = None
        self._made_before = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to count the seconds: not before, because loader processes are forked without a thread beside them."""
        if self._waiting is None:
            self._made_before = trainer.global_step
            total = trainer.max_steps - self._made_before if trainer.max_steps > 0 else None
            size = size_in_words(*batch.step.shape[-2:])
            self._waiting = Waiting("Training", total, "updates", progress="line", step=size)
            self._waiting.begin()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count."""
        assert self._waiting is not None
        self._waiting.done = trainer.global_step - self._made_before
        if self._waiting.is_over:
            others = [one for one in trainer.callbacks if one is not self]  # type: ignore[attr-defined]  # a connector's
            trainer.callbacks = others  # type: ignore[attr-defined]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say nothing more."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say nothing more."""
        self._end()

    def _end(self) -> None:
        if self._waiting is not None:
            self._waiting.end()
