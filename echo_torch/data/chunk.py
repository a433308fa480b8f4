"""The chunk: what one batch holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.errors import RuleError

NOT_ASKED = -100  # what cross-entropy ignores by default


class Chunk(NamedTuple):
    """One batch and one update: a row for each lane, a column for each step it reads.

    Rows never change place: row i of a chunk goes on where row i of the chunk before ended, so the state that
    comes out of one chunk goes into the next as it is.

    >>> from echo_torch import EchoStream, LaneLayout, RandomSymbols
    >>> chunk = next(iter(EchoStream(LaneLayout(num_lanes=2, chunk_length=3, lag=1), RandomSymbols(10))))
    >>> chunk.symbols.shape, chunk.targets[:, 0].tolist(), chunk.starts.tolist()
    (torch.Size([2, 3]), [-100, -100], [True, True])

    It prints what each row reads, and what it is asked; a dot stands where nothing is:

    >>> chunk
    Chunk 0: 2 rows of 3 steps
      row 0  reset  sequence 0, steps 0 to 2  7 9 7  -> . 7 9
      row 1  reset  sequence 1, steps 0 to 2  8 8 9  -> . 8 8

    Attributes:
        symbols: int64 (lanes, steps); -1: nothing is read in this column and a zero vector enters the network. Of a
            stream of readings floats, (lanes, steps) or (lanes, steps, features); zeros where nothing is read.
        targets: int64 (lanes, steps); -100: nothing is asked here. Or floats, (lanes, steps) or
            (lanes, steps, features); NaN: nothing is asked.
        starts: bool (lanes,); true: reset this lane's state before the chunk.
        sequence: int64 (lanes,), which sequence the lane reads; -1 for a row that is not used.
        step: int64 (lanes, steps), position of every column in its sequence; -1 where nothing is read because a
            row has ended. Where a reading is missing, it has its place. It need not rise by one.
        index: The chunk's number in the stream, counted from 0.
    """

    symbols: Tensor
    targets: Tensor
    starts: Tensor
    sequence: Tensor
    step: Tensor
    index: int  # type: ignore[assignment]  # hides tuple.index, which a chunk has no use for

    def __repr__(self) -> str:
        """A line for each row, of many for the first ones."""
        if not all(type(field) is Tensor and not field.is_meta for field in self[:-1]):  # there are no numbers
            return tuple.__repr__(self)
        from echo_torch.data.chunk_text import chunk_as_text

        return chunk_as_text(self)

    def to(self, device: torch.device) -> Chunk:
        """The chunk with what the network reads, symbols and targets, on a device. The stamps are for the CPU.

        Lightning calls this for every batch.
        """
        if self.symbols.device == device:
            return self
        return self._replace(symbols=self.symbols.to(device), targets=self.targets.to(device))

    def to_dict(self) -> dict[str, Tensor]:
        """The fields by name, for a trainer that gives them to a model as keyword arguments.

        Returns:
            The chunk's tensors, and `index` as int64 (lanes,), the same in each row: trainers that slice a batch
            slice every tensor of it along the lanes.
        """
        return {**self._asdict(), "index": torch.full((len(self.starts),), self.index)}


def collate_chunk(chunks: Sequence[Chunk]) -> dict[str, Tensor]:
    """Collate one chunk to a dict, for a trainer that makes batches of a list of examples.

        DataLoader(stream, batch_size=1, collate_fn=collate_chunk)
        Trainer(model, TrainingArguments(..., per_device_train_batch_size=1), collate_chunk, stream)  # Hugging Face's

    A trainer of several processes must cut each batch along its lanes, and not give each process another batch:
    Hugging Face's does with `accelerator_config={"split_batches": True}`.

    >>> from echo_torch import EchoStream, LaneLayout, RandomSymbols
    >>> stream = EchoStream(LaneLayout(num_lanes=2, chunk_length=3, lag=1), RandomSymbols(10))
    >>> loader = torch.utils.data.DataLoader(stream, batch_size=1, collate_fn=collate_chunk)
    >>> sorted(next(iter(loader)))
    ['index', 'sequence', 'starts', 'step', 'symbols', 'targets']

    Args:
        chunks: A single chunk: it is a batch already, with a row for each lane.

    Returns:
        As of `Chunk.to_dict`.

    Raises:
        RuleError: If there are several chunks, or none.
    """
    if len(chunks) != 1:
        raise RuleError(
            "chunks",
            "$chunks must hold exactly one chunk",
            f"{len(chunks)}",
            reason="because a chunk is a batch already, and its rows go on where those of the chunk before ended",
            way_out="set the batch size to 1",
        )
    return chunks[0].to_dict()
