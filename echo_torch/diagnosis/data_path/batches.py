"""Anyone's batches on their way to be followed: as stamps that are checked, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch

from echo_torch.data.stream import EchoStream, is_in_blocks, num_chunks_of
from echo_torch.diagnosis.first_contact import missing_stamps
from echo_torch.diagnosis.stamps import CheckedStamps, Stamps, as_array, checked_stamps, stamps_of_chunk
from echo_torch.errors import RuleError
from echo_torch.randomness import random_state_kept

DEFAULT_MAX_CHUNKS = 200  # of a stream without end
_MOST_CHUNKS = 10_000  # of batches that nobody can count before
_COLUMNS_PER_BLOCK = 2**14


@contextmanager
def draws_given_back(loader: Any) -> Iterator[None]:
    """The global random states and a loader's own generators are afterwards as they were."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    generators = [getattr(owner, "generator", None) for owner in owners]
    before = [(each, each.get_state()) for each in generators if isinstance(each, torch.Generator)]
    try:
        with random_state_kept():
            yield
    finally:
        for generator, state in before:
            generator.set_state(state)


class Batches:
    """Chunks on their way to be followed.

    Attributes:
        total: How many are looked at, where that is known before.
        empty: The numbers of those that hold nothing.
        last: The last one that holds something, with one axis more, the chunks, before the others.
        is_whole: Whether it is known that there are no more.
    """

    def __init__(self, chunks: Iterable[Any], stamps: Callable[[Any], Stamps], max_chunks: int | None) -> None:
        self._chunks, self._stamps = chunks, stamps
        self._number = num_chunks_of(chunks)
        is_endless = isinstance(chunks, EchoStream) and self._number is None
        unless_given = DEFAULT_MAX_CHUNKS if is_endless else _MOST_CHUNKS if self._number is None else self._number
        self._most = unless_given if max_chunks is None else max_chunks
        self.total = self._most if is_endless else None if self._number is None else min(self._most, self._number)
        self.empty: list[int] = []
        self.last: CheckedStamps | None = None
        self.is_whole = self._number is not None and self._most >= self._number

    def blocks(self) -> Iterator[CheckedStamps]:
        """Chunks of one shape together, because a call of numpy costs as much as a thousand columns."""
        is_of_stream = is_in_blocks(self._chunks) and self._stamps is stamps_of_chunk
        blocks = self._of_stream() if is_of_stream else self._stacked()
        for block in blocks:
            self.last = CheckedStamps._make(field[-1:] for field in block)
            yield block

    def _of_stream(self) -> Iterator[CheckedStamps]:
        assert isinstance(self._chunks, EchoStream)
        left = self._most
        for block in self._chunks.blocks():
            yield _checked_block(stamps_of_chunk(block), left)
            left -= len(block.step)
            if left <= 0:
                return

    def _stacked(self) -> Iterator[CheckedStamps]:
        held: list[CheckedStamps] = []
        for fields in self._one_by_one():
            is_alike = held and all(old.shape == new.shape for old, new in zip(held[0], fields, strict=True))
            if held and (not is_alike or len(held) * fields.step.size >= _COLUMNS_PER_BLOCK):
                yield _stack(held)
                held = []
            held.append(fields)
        if held:
            yield _stack(held)

    def _one_by_one(self) -> Iterator[CheckedStamps]:
        number = -1
        for number, chunk in enumerate(islice(self._chunks, self._most)):
            stamps = self._stamps_of(chunk)
            if isinstance(stamps, Stamps) and 0 in as_array(stamps.step).shape:
                self.empty.append(number)
            else:
                yield _checked(stamps, number)
        self.is_whole |= number + 1 < self._most

    def _stamps_of(self, chunk: Any) -> Stamps:
        if self._stamps is not stamps_of_chunk:
            return self._stamps(chunk)
        try:
            return stamps_of_chunk(chunk)
        except AttributeError:
            how = "reach(loader, stamps=lambda batch: {stamps})"
            shorter = "a loader that is made over an array needs nothing of it: write `reach_of(make_loader, length)`"
            raise missing_stamps(chunk, how, shorter) from None


def _checked(stamps: Stamps, number: int) -> CheckedStamps:
    try:
        return checked_stamps(stamps)
    except RuleError as error:
        got = f"{error.got} in chunk {number}"
        raise RuleError(error.name, error.message, got, reason=error.reason, way_out=error.way_out) from None


def _checked_block(stamps: Stamps, most: int) -> CheckedStamps:
    """The stamps of a block of a stream, which need no check."""
    step, sequence, starts, is_read, is_asked = (as_array(field)[:most] for field in stamps[:5])
    nothing = np.zeros((*step.shape, 0), np.int64)
    restored = np.full((*sequence.shape, 1), -1)
    is_place = step >= 0
    return CheckedStamps(
        step, sequence[..., None], starts[..., None], is_read & is_place, is_asked & is_place, nothing, restored
    )


def _stack(held: list[CheckedStamps]) -> CheckedStamps:
    return CheckedStamps._make(np.stack(field) for field in zip(*held, strict=True))
