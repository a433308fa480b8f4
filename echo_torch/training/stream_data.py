"""Streams for a Trainer: each rank its lanes, a resumed training from where it stands."""

from __future__ import annotations

from pytorch_lightning import LightningDataModule

from echo_torch.training.bodies import StreamDataBody


class StreamData(StreamDataBody, LightningDataModule):
    """Gives every rank its lanes: only when the loader is asked for is the rank known.

    >>> from echo_torch import EchoStream, LaneLayout, RandomSymbols
    >>> layout = LaneLayout(num_lanes=4, chunk_length=5, lag=1)
    >>> data = StreamData(
    ...     lambda start, rank, num_ranks: EchoStream(
    ...         layout, RandomSymbols(10), start=start, rank=rank, num_ranks=num_ranks
    ...     ),
    ...     lambda rank, num_ranks: EchoStream(
    ...         layout, RandomSymbols(10, split="evaluation"), num_chunks=20, rank=rank, num_ranks=num_ranks
    ...     ),
    ... )

    Args:
        training: (start, rank, num_ranks) -> the stream that is trained on.
        validation: (rank, num_ranks) -> the stream of a validation.
        num_workers: Processes that make chunks ahead of time.
        block: The training gets several chunks at a time, as of `EchoStream.loader`.
    """
