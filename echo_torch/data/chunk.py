"""The chunk: what one batch holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NOT_ASKED = -100  # what cross-entropy ignores by default


class Chunk(NamedTuple):
    """One batch and one update: a row for each lane, a column for each step it reads.

    Rows never change place: row i of a chunk goes on where row i of the chunk before ended, so the state that
    comes out of one chunk goes into the next as it is.

    Attributes:
        symbols: int64 (lanes, steps); -1: nothing is read in this column and a zero vector enters the network.
        targets: int64 (lanes, steps); -100: nothing is asked here.
        starts: bool (lanes,); true: reset this lane's state before the chunk.
        sequence: int64 (lanes,), which sequence the lane reads; -1 for a row that is not used.
        step: int64 (lanes, steps), position of every column in its sequence; -1 where nothing is read because a
            row has ended. It need not rise by one.
        index: The chunk's number in the stream, counted from 0.
    """

    symbols: Tensor
    targets: Tensor
    starts: Tensor
    sequence: Tensor
    step: Tensor
    index: int  # type: ignore[assignment]  # hides tuple.index, which a chunk has no use for

    def to(self, device: torch.device) -> Chunk:
        """The chunk with what the network reads, symbols and targets, on a device. The stamps are for the CPU.

        Lightning calls this for every batch.
        """
        if self.symbols.device == device:
            return self
        return self._replace(symbols=self.symbols.to(device), targets=self.targets.to(device))
