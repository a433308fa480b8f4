"""Streams for a Trainer: each rank its lanes, a resumed training from where it stands."""

from __future__ import annotations

from typing import Any, Protocol

from pytorch_lightning import LightningDataModule

from echo_torch.data.stream import EchoStream


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


class StreamData(LightningDataModule):
    """Gives every rank its lanes: only when the loader is asked for is the rank known.

    Args:
        training: (start, rank, num_ranks) -> the stream that is trained on.
        validation: (rank, num_ranks) -> the stream of a validation.
        num_workers: Processes that make chunks ahead of time.
    """

    def __init__(self, training: TrainingStream, validation: ValidationStream, *, num_workers: int = 0) -> None:
        super().__init__()
        self._training, self._validation, self._num_workers = training, validation, num_workers

    def train_dataloader(self) -> Any:
        """The training stream from where the module stands, or this rank's share of it."""
        assert self.trainer is not None
        start = getattr(self.trainer.lightning_module, "cursor", 0)
        return self._training(start=start, **self._shard()).loader(num_workers=self._num_workers)

    def val_dataloader(self) -> Any:
        """The validation's stream, or this rank's share of it."""
        return self._validation(**self._shard()).loader()

    def _shard(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "num_ranks": self.trainer.world_size}
