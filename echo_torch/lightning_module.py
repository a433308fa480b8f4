"""Training with carried state under Lightning: one chunk, one batch, one update."""

from __future__ import annotations

from math import isfinite
from typing import Any, NoReturn

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from echo_torch.chunk import Chunk
from echo_torch.encoding import count_asked, count_correct, loss_sum, num_digits_of
from echo_torch.state import RecurrentModel, detach_state, reset_state


class LossError(RuntimeError):
    """The loss is no number any more; the optimiser has not seen it."""


class EchoModule(LightningModule):
    """Carries a model's state from chunk to chunk: resets it where a chunk says so, detaches it at every chunk.

    It knows no experiment. What is read, asked, carried and reset stands in the chunks. Any Trainer runs it:

        module = EchoModule(EchoLSTM(), learning_rate=1e-3)
        Trainer(max_steps=8000).fit(module, stream.loader())

    Every `trainer.log_every_n_steps` updates, and at the last one, a row goes to the loggers: `loss` and `accuracy`
    pooled over all targets since the row before, and `targets`, their number. Loss and accuracy are in
    `trainer.callback_metrics` too.

    Args:
        model: Anything with `forward(symbols, state) -> (logits, state)` and `initial_state(lanes)`.
        learning_rate: Adam's step size.
        epsilon: Adam's denominator offset: PyTorch's default is 1e-8, Keras's 1e-7.

    Attributes:
        carry: The state that the next chunk begins with, detached; None before the first.
    """

    def __init__(self, model: RecurrentModel[Any], *, learning_rate: float = 1e-3, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.model = model
        self._num_digits = num_digits_of(model)
        self.learning_rate = learning_rate
        self.epsilon = epsilon
        # A plain attribute, no buffer: DDP would overwrite a buffer with rank 0's lanes, and a saved one would
        # tie the weights to a number of lanes.
        self.carry: Any = None
        self._pooled: Tensor | None = None  # loss sum, correct, asked since the last row

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, its update done in one fused call."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate, eps=self.epsilon, fused=True)

    def on_train_start(self) -> None:
        """A new training begins with nothing remembered."""
        self.carry = None
        self._pooled = None

    def training_step(self, chunk: Chunk, batch_idx: int) -> Tensor:
        """Read one chunk and return its loss: the mean over the targets that all ranks were asked.

        Raises:
            LossError: If the loss is not finite.
        """
        state = self.model.initial_state(len(chunk.symbols)) if self.carry is None else self.carry
        logits, state = self.model(chunk.symbols, reset_state(state, chunk.starts))
        total = loss_sum(logits, chunk.targets, self._num_digits)
        if not isfinite(total.item()):
            self._refuse(chunk)
        # Set here and not in a later hook: a checkpoint callback runs before those.
        self.carry = detach_state(state)
        asked = count_asked(chunk.targets)
        self._pool(total.detach(), count_correct(logits, chunk.targets, self._num_digits), asked)
        num_ranks = self.trainer.world_size
        asked = _sum_over_ranks(asked, num_ranks)
        # DDP takes the mean of the ranks' gradients; times their number it is the sum again.
        return total * num_ranks / asked.clamp(min=1)

    def _refuse(self, chunk: Chunk) -> NoReturn:
        read = sorted({sequence for sequence in chunk.sequence.tolist() if sequence >= 0})
        which = f"sequence {read[0]}" if len(read) == 1 else f"sequences {read[0]} to {read[-1]}"
        raise LossError(
            f"The loss is not finite at update {self.trainer.global_step + 1}, on {which}; the optimiser has not "
            "applied it. A smaller learning rate or a clipped gradient norm may help."
        )

    def _pool(self, total: Tensor, correct: Tensor, asked: Tensor) -> None:
        # Added up on the device and read once a row, because every read would wait for the device.
        counts = torch.stack([total.double(), correct.double(), asked.double()])
        self._pooled = counts if self._pooled is None else self._pooled + counts
        trainer, update = self.trainer, self.trainer.global_step + 1
        log_every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        if update % log_every == 0 or update == trainer.max_steps or trainer.is_last_batch:
            self._log_row(self._pooled, update)
            self._pooled = None

    def _log_row(self, pooled: Tensor, update: int) -> None:
        loss, correct, asked = _sum_over_ranks(pooled, self.trainer.world_size).tolist()
        row = {"loss": loss / asked, "accuracy": correct / asked} if asked else {}
        self.log_dict(row, logger=False, prog_bar=True)
        # Straight to the loggers: through `self.log` the last row would be lost, and the step be one too low.
        for logger in self.loggers:
            logger.log_metrics({**row, "targets": asked}, step=update)


def _sum_over_ranks(values: Tensor, num_ranks: int) -> Tensor:
    if num_ranks == 1:
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values
