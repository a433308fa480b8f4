"""Training with carried state under Lightning: one chunk, one batch, one update."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, NoReturn

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from echo_torch.data.chunk import Chunk
from echo_torch.errors import RuleError
from echo_torch.models.encoding import count_asked, count_correct, loss_sum, most_likely, num_digits_of
from echo_torch.models.state import RecurrentModel, detach_state, reset_state
from echo_torch.ranks import gather, own_rank, sum_over_ranks
from echo_torch.training.checkpoints import CHECKPOINT_KEY
from echo_torch.training.saved_state import pack, pack_rank, restore_random_state


class LossError(RuntimeError):
    """The loss or the weights are no numbers any more; the last checkpoint is from before."""


class EchoModule(LightningModule):
    """Carries a model's state from chunk to chunk: resets it where a chunk says so, detaches it at every chunk.

    It knows no experiment. What is read, asked, carried and reset stands in the chunks. Any Trainer runs it:

        module = EchoModule(EchoLSTM(), learning_rate=1e-3)
        Trainer(max_steps=8000).fit(module, stream.loader())

    Every `trainer.log_every_n_steps` updates, and at the last one, a row goes to the loggers: `loss` and `accuracy`
    pooled over all targets since the row before, and `targets`, their number. Loss and accuracy are in
    `trainer.callback_metrics` too. A validation gives one row with `validation_` before each name.

    Training, validation, test and prediction have a state each, and none sees another's.

    Its checkpoints hold, of every rank, the carried state, the counters since the last row and the random state, and
    they hold `cursor`. A training that is to go on as if it had never stopped needs a loader that begins there;
    Lightning asks a data module for it after the checkpoint was read:

        def train_dataloader(self):
            return EchoStream(layout, source, start=self.trainer.lightning_module.cursor).loader()

    Args:
        model: Anything with `forward(symbols, state) -> (logits, state)` and `initial_state(lanes)`.
        learning_rate: Adam's step size.
        epsilon: Adam's denominator offset: PyTorch's default is 1e-8, Keras's 1e-7.

    Attributes:
        carry: The state that the next chunk begins with, detached; None before the first.
        cursor: The number of the chunk that training reads next.
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
        self.cursor = 0
        self._pooled: Tensor | None = None  # loss sum, correct, asked since the last row
        self._aside: Any = None  # the carried state of a validation, test or prediction
        self._validated: Tensor | None = None  # as _pooled, of the validation
        self._restored: Mapping[str, Any] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, its update done in one fused call."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate, eps=self.epsilon, fused=True)

    def setup(self, stage: str) -> None:
        """A new training begins with nothing remembered."""
        if stage == "fit":
            self.carry, self._pooled, self._restored, self.cursor = None, None, None, 0

    def on_train_start(self) -> None:
        """A resumed training begins with what its checkpoint holds."""
        restored, self._restored = self._restored, None
        if restored is None:
            return
        self.carry = None if restored["carry"] is None else self._state_from(restored["carry"])
        self._pooled = None if restored["pooled"] is None else restored["pooled"].to(self.device)
        # Not earlier: making the loader draws random numbers.
        restore_random_state(restored["random"], self.device)

    def training_step(self, chunk: Chunk, batch_idx: int) -> Tensor:
        """Read one chunk and return its loss: the mean over the targets that all ranks were asked.

        Raises:
            LossError: If the loss is not finite.
        """
        state = self.model.initial_state(len(chunk.symbols)) if self.carry is None else self.carry
        logits, state = self.model(chunk.symbols, reset_state(state, chunk.starts))
        total = loss_sum(logits, chunk.targets, self._num_digits)
        # The sum over all ranks, so that all stop where the loss of one is not finite.
        counts = sum_over_ranks(self._count(logits, chunk.targets, total.detach()))
        sum_of_losses, _, asked = counts.tolist()
        if not isfinite(sum_of_losses):
            self._refuse(chunk)
        # Set here and not in a later hook: a checkpoint callback runs before those.
        self.carry = detach_state(state)
        self.cursor = chunk.index + 1
        self._pool(counts)
        if (num_ranks := self.trainer.world_size) > 1:
            total = total * num_ranks  # DDP takes the mean of the ranks' gradients; so it is the sum again
        loss: Tensor = total / max(1.0, asked)
        return loss

    def on_validation_start(self) -> None:
        """A validation begins with a state and counters of its own."""
        self._aside, self._validated = None, None

    def validation_step(self, chunk: Chunk, batch_idx: int) -> None:
        """Read one chunk without learning from it."""
        logits = self._read_aside(chunk)
        counts = self._count(logits, chunk.targets, loss_sum(logits, chunk.targets, self._num_digits))
        self._validated = counts if self._validated is None else self._validated + counts

    def on_validation_epoch_end(self) -> None:
        """Give the loggers a row: every target of all ranks counted once."""
        if self._validated is not None and not self.trainer.sanity_checking:
            self._log_row(sum_over_ranks(self._validated), self.trainer.global_step, prefix="validation_")

    def on_test_start(self) -> None:
        """A test begins with a state of its own."""
        self.on_validation_start()

    def test_step(self, chunk: Chunk, batch_idx: int) -> None:
        """Read one chunk without learning from it."""
        self.validation_step(chunk, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Give the loggers a row, as after a validation."""
        if self._validated is not None:
            self._log_row(sum_over_ranks(self._validated), self.trainer.global_step, prefix="test_")

    def on_predict_start(self) -> None:
        """A prediction begins with a state of its own."""
        self._aside = None

    def predict_step(self, chunk: Chunk, batch_idx: int) -> Tensor:
        """The likeliest symbols, int64 (lanes, steps)."""
        return most_likely(self._read_aside(chunk), self._num_digits)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what Lightning does not know, of all ranks: Lightning saves that of the first alone."""
        own = pack_rank(self.carry, self._pooled, self.device)
        checkpoint[CHECKPOINT_KEY] = pack(self.cursor, gather(own))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `on_save_checkpoint` put in, where a training is to go on.

        Raises:
            RuleError: If it was written by another number of ranks, or by a model with another state.
        """
        if self._trainer is None or self._trainer.state.fn != TrainerFn.FITTING or CHECKPOINT_KEY not in checkpoint:
            return
        saved = checkpoint[CHECKPOINT_KEY]
        num_ranks = self.trainer.world_size
        if len(saved["ranks"]) != num_ranks:
            raise RuleError(
                "devices",
                "$devices must be as when the checkpoint was written",
                f"{num_ranks}, and a checkpoint of {len(saved['ranks'])}",
                reason="because each rank carries its own lanes",
            )
        own = saved["ranks"][own_rank()]
        if own["carry"] is not None:
            self._state_from(own["carry"])  # refuse it now, not after the loader was made
        self._restored = own
        self.cursor = saved["cursor"]

    def _state_from(self, fields: list[Tensor]) -> Any:
        """The model's state with these values.

        Raises:
            RuleError: If they are not of its shapes.
        """
        num_lanes = fields[0].shape[1] if fields and fields[0].ndim > 1 else 0
        template = self.model.initial_state(num_lanes)
        found, needed = ([(tuple(f.shape), f.dtype) for f in state] for state in (fields, template))
        if found != needed:
            raise RuleError("carry", f"$carry of the checkpoint must be a state of this model, {needed}", found)
        make = getattr(template, "_make", tuple)
        return make(field.to(old.device) for field, old in zip(fields, template, strict=True))

    def _read_aside(self, chunk: Chunk) -> Tensor:
        state = self.model.initial_state(len(chunk.symbols)) if self._aside is None else self._aside
        logits, self._aside = self.model(chunk.symbols, reset_state(state, chunk.starts))
        return logits

    def _refuse(self, chunk: Chunk) -> NoReturn:
        read = sorted({sequence for part in gather(chunk.sequence.tolist()) for sequence in part if sequence >= 0})
        which = f"sequence {read[0]}" if len(read) == 1 else f"sequences {read[0]} to {read[-1]}"
        raise LossError(
            f"The loss is not finite at update {self.trainer.global_step + 1}, on {which}; the optimiser has not "
            "applied it. A smaller learning rate or a clipped gradient norm may help."
        )

    def _count(self, logits: Tensor, targets: Tensor, total: Tensor) -> Tensor:
        """Loss sum, right answers, asked targets."""
        correct, asked = count_correct(logits, targets, self._num_digits), count_asked(targets)
        return torch.stack([total.double(), correct.double(), asked.double()])

    def _pool(self, counts: Tensor) -> None:
        self._pooled = counts if self._pooled is None else self._pooled + counts
        trainer, update = self.trainer, self.trainer.global_step + 1
        log_every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        is_full = update % log_every == 0 or trainer.is_last_batch
        if is_full or update == trainer.max_steps:
            self._log_row(self._pooled, update)
        if is_full:  # else it is the rest of a training, which a longer one counts on from
            self._pooled = None

    def _log_row(self, pooled: Tensor, update: int, prefix: str = "") -> None:
        loss, correct, asked = pooled.tolist()
        row = {f"{prefix}loss": loss / asked, f"{prefix}accuracy": correct / asked} if asked else {}
        # All ranks have the same values; Lightning wants to be told to make them so.
        self.log_dict(row, logger=False, prog_bar=not prefix, sync_dist=bool(prefix))
        # Straight to the loggers: through `self.log` the last row would be lost, and the step be one too low.
        for logger in self.loggers:
            logger.log_metrics({**row, f"{prefix}targets": asked}, step=update)
