"""What runs under either Lightning, written once: `EchoModule` and `StreamData` without the class they stand on.

`pytorch_lightning` and `lightning` have a LightningModule each, and a Trainer of one refuses the other's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import torch
from torch import Tensor, nn

from echo_torch.data.chunk import Chunk
from echo_torch.data.stream import EchoStream
from echo_torch.errors import RuleError
from echo_torch.models.encoding import count_all, loss_sum, most_likely, num_digits_of
from echo_torch.models.state import initial_state_of
from echo_torch.ranks import gather, sum_over_ranks
from echo_torch.training.carry import Carry, CarryWarning
from echo_torch.training.checkpoints import CHECKPOINT_KEY

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule as _DataModule
    from pytorch_lightning import LightningModule as _Module
else:
    _Module = _DataModule = object


class LossError(RuntimeError):
    """The loss or the weights are no numbers any more; the last checkpoint is from before.

    Attributes:
        update: At which it was seen, from 1.
    """

    update = 0


def loss_error(update: int, sequences: Sequence[int]) -> LossError:
    """The error of an update whose loss is not finite.

    Args:
        update: Its number, from 1.
        sequences: What its lanes read; -1 of one that read nothing.
    """
    read = sorted({sequence for sequence in sequences if sequence >= 0})
    which = f"sequence {read[0]}" if len(read) == 1 else f"sequences {read[0]} to {read[-1]}"
    error = LossError(
        f"The loss is not finite at update {update}, on {which}; nothing of this update is saved. A smaller "
        "learning rate or a clipped gradient norm may help."
    )
    error.update = update
    return error


def weights_error(update: int) -> LossError:
    """The error of weights that are not finite after an update."""
    error = LossError(f"The weights are not finite any more after update {update}. A smaller learning rate may help.")
    error.update = update
    return error


class EchoModuleBody(_Module):
    """All of `EchoModule` but its base class."""

    def __init__(self, model: nn.Module, *, learning_rate: float = 1e-3, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.model = model
        self._num_digits = num_digits_of(model)
        self.learning_rate = learning_rate
        self.epsilon = epsilon
        # No buffer: DDP would overwrite a buffer with rank 0's lanes, and a saved one would tie the weights to a
        # number of lanes.
        self._carry = Carry(initial_state_of(model))
        self._pooled: Tensor | None = None  # loss sum, correct, asked since the last row; of all ranks together
        self._validated: Tensor | None = None  # as _pooled, of the validation
        self._resumed_at: int | None = None  # the cursor of a checkpoint, until the first chunk after it

    @property
    def carry(self) -> Any:
        """The state that the next chunk begins with, detached; None before the first."""
        return self._carry.state()

    @carry.setter
    def carry(self, state: Any) -> None:
        self._carry.set_state(state)

    @property
    def cursor(self) -> int:
        """The number of the chunk that training reads next."""
        return self._carry.cursor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, its update done in one fused call where there is one: complex numbers have none."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        is_fused = not any(parameter.is_complex() for parameter in trained)
        return torch.optim.Adam(trained, lr=self.learning_rate, eps=self.epsilon, fused=is_fused)

    def setup(self, stage: str) -> None:
        """A new training begins with nothing remembered."""
        if stage == "fit":
            self._carry.forget()
            self._pooled = self._resumed_at = None

    def on_train_start(self) -> None:
        """A resumed training begins with what its checkpoint holds."""
        self._carry.go_on()

    def training_step(self, chunk: Chunk, batch_idx: int) -> Tensor:
        """Read one chunk and return its loss: the mean over the targets that all ranks were asked.

        Raises:
            LossError: If the loss is not finite.
        """
        if self._resumed_at is not None:
            self._check_begin(chunk.index)
        logits, state = self.model(chunk.symbols, self._carry.begin(chunk.starts))
        total = loss_sum(logits, chunk.targets, self._num_digits)
        # The sum over all ranks, so that all stop where the loss of one is not finite.
        counts = sum_over_ranks(self._count(logits, chunk.targets, total.detach()))
        sum_of_losses, _, asked = counts.tolist()
        if not isfinite(sum_of_losses):
            self._refuse(self.trainer.global_step + 1, chunk.sequence)
        # Set here and not in a later hook: a checkpoint callback runs before those.
        self._carry.end(state, cursor=chunk.index + 1)
        self._pool(counts, batch_idx)
        if (num_ranks := self.trainer.world_size) > 1:
            total = total * num_ranks  # DDP takes the mean of the ranks' gradients; so it is the sum again
        loss: Tensor = total / max(1.0, asked)
        return loss

    def on_validation_start(self) -> None:
        """A validation begins with a state and counters of its own."""
        self._begin_aside()

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
        """A test begins with a state and counters of its own."""
        self._begin_aside()

    def test_step(self, chunk: Chunk, batch_idx: int) -> None:
        """Read one chunk without learning from it."""
        self.validation_step(chunk, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Give the loggers a row, as after a validation."""
        if self._validated is not None:
            self._log_row(sum_over_ranks(self._validated), self.trainer.global_step, prefix="test_")

    def on_predict_start(self) -> None:
        """A prediction begins with a state of its own."""
        self._begin_aside()

    def predict_step(self, chunk: Chunk, batch_idx: int) -> Tensor:
        """The likeliest symbols, int64 (lanes, steps)."""
        return most_likely(self._read_aside(chunk), self._num_digits)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what Lightning does not know, of all ranks: Lightning saves that of the first alone."""
        saved = self._carry.state_dict()
        pooled = None if self._pooled is None else self._pooled.cpu()
        checkpoint[CHECKPOINT_KEY] = {**saved, "ranks": [{**rank, "pooled": pooled} for rank in saved["ranks"]]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `on_save_checkpoint` put in, where a training is to go on.

        Raises:
            RuleError: If it was written by another number of ranks, or by a model with another state.
        """
        if self._trainer is None or self._trainer.state.fn != "fit" or CHECKPOINT_KEY not in checkpoint:
            return
        if self.trainer.precision == "64-true":
            self.double()  # Lightning does so after it has read the weights, which float32 would round
        saved = checkpoint[CHECKPOINT_KEY]
        self._carry.load_state_dict(saved)
        self._pooled, self._resumed_at = saved["ranks"][0]["pooled"], saved["cursor"]

    def _check_begin(self, index: int) -> None:
        expected, self._resumed_at = self._resumed_at, None
        if index != expected:
            warnings.warn(
                f"The training goes on from a checkpoint at chunk {expected}, but its loader begins at chunk "
                f"{index}: the carried state belongs to another place. Let the loader begin at the module's "
                "`cursor`, as that of StreamData does.",
                CarryWarning,
                stacklevel=2,
            )

    @property
    def _stage(self) -> str:
        return cast(str, self.trainer.state.stage)  # a word that knows itself to be one

    def _begin_aside(self) -> None:
        self._carry.forget(self._stage)
        self._validated = None

    def _read_aside(self, chunk: Chunk) -> Tensor:
        state = self._carry.begin(chunk.starts, self._stage)
        logits, state = self.model(chunk.symbols, state)
        self._carry.end(state)
        return cast(Tensor, logits)

    def _refuse(self, update: int, sequences: Tensor) -> NoReturn:
        raise loss_error(update, [sequence for part in gather(sequences.tolist()) for sequence in part])

    def _count(self, logits: Tensor, targets: Tensor, total: Tensor) -> Tensor:
        """Loss sum, right answers, asked targets."""
        return count_all(logits, targets, total, self._num_digits)

    def _pool(self, counts: Tensor, batch_idx: int) -> None:
        self._pooled = counts if self._pooled is None else self._pooled.to(counts.device) + counts
        trainer = self.trainer
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return  # the update is not complete: its gradient is still added up
        self._log_if_due(trainer.global_step + 1)

    def _log_if_due(self, update: int) -> None:
        """Give the loggers a row of what is pooled, where one is due after so many updates."""
        assert self._pooled is not None
        trainer = self.trainer
        log_every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        is_full = update % log_every == 0 or trainer.is_last_batch
        if is_full or update == trainer.max_steps:
            self._log_row(self._pooled, update)
        if is_full:  # else it is the rest of a training, which a longer one counts on from
            self._pooled = None

    def _log_row(self, pooled: Tensor, update: int, prefix: str = "") -> None:
        row = row_of(pooled, prefix)
        # All ranks have the same values; Lightning wants to be told to make them so.
        self.log_dict(row, logger=False, prog_bar=not prefix, sync_dist=bool(prefix))
        # Straight to the loggers: through `self.log` the last row would be lost, and the step be one too low.
        for logger in self.loggers:
            logger.log_metrics({**row, f"{prefix}targets": float(pooled[2])}, step=update)


def row_of(counts: Tensor, prefix: str = "") -> dict[str, float]:
    """Loss and accuracy of a row; nothing where nothing was asked.

    Args:
        counts: float64 (3,): loss sum, right answers, asked targets.
        prefix: Of the names.
    """
    loss, correct, asked = counts.tolist()
    return {f"{prefix}loss": loss / asked, f"{prefix}accuracy": correct / asked} if asked else {}


class TrainingStream(Protocol):
    """Makes the stream that a training reads from a chunk on."""

    def __call__(self, start: int, rank: int, num_ranks: int) -> EchoStream:
        """The stream from chunk `start` on, or the share of it of one of several ranks."""
        ...


class ValidationStream(Protocol):
    """Makes the stream that a validation reads."""

    def __call__(self, *, rank: int, num_ranks: int) -> EchoStream:
        """The stream, or the share of it of one of several ranks."""
        ...


class StreamDataBody(_DataModule):
    """All of `StreamData` but its base class."""

    def __init__(
        self,
        training: TrainingStream,
        validation: ValidationStream,
        *,
        num_workers: int = 0,
        block: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__()
        self._training, self._validation = training, validation
        self._num_workers, self._block = num_workers, block

    def train_dataloader(self) -> Any:
        """The training stream from where the module stands, or this rank's share of it."""
        assert self.trainer is not None
        start = cursor_of(self.trainer.lightning_module)
        stream = self._training(start=start, **self._shard())
        if start and stream.num_chunks is not None and self.trainer.max_epochs != 1:
            raise RuleError(
                "training",
                "$training must give a stream without end, where a training of several epochs goes on in the middle",
                f"num_chunks={stream.num_chunks}, start={start}",
                reason="because each later pass would begin there too",
                way_out="leave num_chunks out, and let the Trainer's max_steps end the training",
            )
        return stream.loader(num_workers=self._num_workers, block=self._block)

    def val_dataloader(self) -> Any:
        """The validation's stream, or this rank's share of it."""
        return self._validation(**self._shard()).loader()

    def _shard(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "num_ranks": self.trainer.world_size}


def cursor_of(module: object) -> int:
    """The number of the batch that a module's training reads next: its `cursor`, or that of its `carry`; else 0."""
    holder = module if hasattr(module, "cursor") else getattr(module, "carry", None)
    return int(getattr(holder, "cursor", 0))
