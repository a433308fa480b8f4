"""Where the windows of the sequences go: which lane of which chunk reads which step.

A layout is arithmetic on chunk numbers. It holds no symbols and no state, so chunk k is had at the cost of
chunk 0, and any worker can make any chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.framing import NO_STEP, Frames, answer_steps
from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError

UNUSED_ROW = -1
CARRIES = ("keep", "reset")
CUTS = ("chunk", "sequence")
_PLACES_AT_ONCE = 2**16


class Places(NamedTuple):
    """What n chunks read, before any symbol is looked up.

    Attributes:
        sequence: int64 (n, lanes), which sequence a lane reads; -1 for a row that is not used.
        step: int64 (n, lanes, steps), which step of it; -1 where nothing is read.
        answer: int64 (n, lanes, steps), which step holds the symbol that is asked; -1 where nothing is asked.
        starts: bool (n, lanes), whether the lane's state is reset before the chunk.
    """

    sequence: Integers
    step: Integers
    answer: Integers
    starts: NDArray[np.bool_]


class Layout(Protocol):
    """What a stream asks of a layout."""

    @property
    def num_lanes(self) -> int:
        """Rows of every chunk."""
        ...

    @property
    def num_steps(self) -> int:
        """Columns of every chunk."""
        ...

    def places(self, index: Integers) -> Places:
        """What the chunks of the given numbers, int64 (n,), read."""
        ...

    def drawn(self, num_chunks: int) -> tuple[int, int]:
        """How many sequences, and how many fresh symbols, the first `num_chunks` chunks draw from."""
        ...


class WindowLayout:
    """Batches of consecutive windows, one sequence after another: the tutorial's way.

    Row i of a batch continues row i of the batch before, so a lane jumps `batch_size` windows a chunk.

        8 windows, batch_size=3            chunk 0   chunk 1   chunk 2
        lane 0 reads window                   0         3         6
        lane 1                                1         4         7
        lane 2                                2         5       unused

    With `cut="sequence"` the batches of one sequence stand side by side along the steps of a single chunk
    (lane 0: windows 0, 3, 6 in one row), so that nothing is detached between them.

    >>> from echo_torch import frame_windows
    >>> layout = WindowLayout(frame_windows(length=10, window_length=3, lag=1), length=10, batch_size=3)
    >>> layout.num_lanes, layout.num_steps, layout.chunks_per_sequence
    (3, 3, 3)

    Args:
        frames: The windows of one sequence.
        length: Steps in the sequence: what is drawn for it, read or not.
        batch_size: Windows per batch, at least 1.
        carry: "keep" resets the state at the first chunk of each sequence, "reset" at every chunk.
        cut: "chunk" gives one chunk for each batch, "sequence" one for all batches of a sequence.
        sequences_at_once: So many sequences are read next to each other, each on its own `batch_size` lanes.
            It changes nothing about what any lane reads; evaluation uses it to be quick.

    Raises:
        RuleError: If a number is below 1, a word is unknown, or the cut is removed without a carried state.
    """

    def __init__(
        self,
        frames: Frames,
        length: int,
        batch_size: int,
        *,
        carry: str = "keep",
        cut: str = "chunk",
        sequences_at_once: int = 1,
    ) -> None:
        check_carry_and_cut(carry, cut)
        for name, number in (("batch_size", batch_size), ("sequences_at_once", sequences_at_once)):
            if number < 1:
                raise RuleError(name, f"${name} must be at least 1: a chunk has lanes", number)
        self._sequences_at_once = sequences_at_once
        self._resets_every_chunk = carry == "reset"
        self._length = length
        self._steps = _batches(frames.steps, batch_size, cut)
        self._answers = _batches(frames.answers, batch_size, cut)

    @property
    def chunks_per_sequence(self) -> int:
        """Chunks, and so updates, that one sequence makes."""
        return len(self._steps)

    def num_chunks(self, num_sequences: int) -> int:
        """Chunks that so many sequences make."""
        return -(-num_sequences // self._sequences_at_once) * self.chunks_per_sequence

    @property
    def num_lanes(self) -> int:
        """Rows of every chunk."""
        return int(self._steps.shape[1]) * self._sequences_at_once

    @property
    def num_steps(self) -> int:
        """Columns of every chunk."""
        return int(self._steps.shape[2])

    @property
    def num_answered(self) -> int:
        """So many of the last columns hold whatever is asked; nothing is asked in those before."""
        is_asked = (self._answers != NO_STEP).any(axis=(0, 1))
        return self.num_steps - int(is_asked.argmax())

    def places(self, index: Integers) -> Places:
        """What the chunks of the given numbers, int64 (n,), read."""
        group, place = np.divmod(index, self.chunks_per_sequence)
        step = np.tile(self._steps[place], (1, self._sequences_at_once, 1))
        answer = np.tile(self._answers[place], (1, self._sequences_at_once, 1))
        first = group[:, None] * self._sequences_at_once
        sequence = first + np.repeat(np.arange(self._sequences_at_once), self._steps.shape[1])
        is_used = (step != NO_STEP).any(axis=2)
        starts = (place == 0) | self._resets_every_chunk
        return Places(
            sequence=np.where(is_used, sequence, UNUSED_ROW),
            step=step,
            answer=answer,
            starts=np.repeat(starts[:, None], self.num_lanes, axis=1),
        )

    def drawn(self, num_chunks: int) -> tuple[int, int]:
        """How many sequences, and how many fresh symbols, the first `num_chunks` chunks draw from."""
        num_sequences = -(-num_chunks // self.chunks_per_sequence) * self._sequences_at_once
        return num_sequences, num_sequences * self._length


class LaneLayout:
    """Lanes that go on reading where they stopped: chunk after chunk without a gap, every step asked.

        num_lanes=2, chunk_length=3        chunk 0    chunk 1    chunk 2
        lane 0 (sequence 0) reads steps     0 1 2      3 4 5      6 7 8
        lane 1 (sequence 1)                 0 1 2      3 4 5      6 7 8

        the same, reset_every=4
        lane 0                              0 1 2      3          0 1 2
        sequence                              0          0          2

    A sequence that ends inside a chunk is followed by empty columns, and the lane's next chunk starts afresh.

    >>> layout = LaneLayout(num_lanes=2, chunk_length=3, lag=1, reset_every=4)
    >>> layout.places(np.array([0, 1])).step[:, 0].tolist()
    [[0, 1, 2], [3, -1, -1]]

    Args:
        num_lanes: Rows of every chunk, at least 1.
        chunk_length: Steps per chunk, at least 1.
        lag: How many steps back the answer lies, at least 0. It is not asked where it would lie before the lane's
            first step.
        reset_every: Steps in a sequence; None: every lane reads one sequence without end.
        first_steps: For each lane the step of its first sequence at which it starts; None: all at 0. With
            `reset_every` it makes the lanes reset at different chunks.
        carry: "keep" resets the state where a sequence begins, "reset" at every chunk.

    Raises:
        RuleError: If a number is out of range or a word is unknown.
    """

    def __init__(
        self,
        num_lanes: int,
        chunk_length: int,
        lag: int,
        *,
        reset_every: int | None = None,
        first_steps: Sequence[int] | None = None,
        carry: str = "keep",
    ) -> None:
        check_carry_and_cut(carry, "chunk")
        for name, number in (("num_lanes", num_lanes), ("chunk_length", chunk_length)):
            if number < 1:
                raise RuleError(name, f"${name} must be at least 1: a chunk holds something", number)
        if lag < 0:
            raise RuleError("lag", "$lag must be at least 0: an echo cannot come before its symbol", lag)
        if reset_every is not None and reset_every < 1:
            raise RuleError("reset_every", "$reset_every must be at least 1: a sequence has steps", reset_every)
        first = np.zeros(num_lanes, dtype=np.int64) if first_steps is None else np.asarray(first_steps)
        end = np.inf if reset_every is None else reset_every
        if first.shape != (num_lanes,) or (first < 0).any() or (first >= end).any():
            raise RuleError(
                "first_steps",
                f"$first_steps must hold for each of the {num_lanes} lanes a step of its first sequence",
                repr(first_steps),
            )
        self._num_lanes, self._chunk_length, self._lag = num_lanes, chunk_length, lag
        self._reset_every, self._first_steps = reset_every, first
        self._resets_every_chunk = carry == "reset"

    @property
    def num_lanes(self) -> int:
        """Rows of every chunk."""
        return self._num_lanes

    @property
    def num_steps(self) -> int:
        """Columns of every chunk."""
        return self._chunk_length

    def places(self, index: Integers) -> Places:
        """What the chunks of the given numbers, int64 (n,), read."""
        number, chunk, begin = self._sequence_of(index[:, None])
        step = (begin + chunk * self._chunk_length)[:, :, None] + np.arange(self._chunk_length)
        if self._reset_every is not None:
            step = np.where(step < self._reset_every, step, NO_STEP)
        answer = answer_steps(step, self._lag, begin[:, :, None])
        return Places(
            sequence=number * self._num_lanes + np.arange(self._num_lanes),
            step=step,
            answer=np.where(step == NO_STEP, NO_STEP, answer),
            starts=(chunk == 0) | self._resets_every_chunk,
        )

    def drawn(self, num_chunks: int) -> tuple[int, int]:
        """How many sequences, and how many fresh symbols, the first `num_chunks` chunks draw from."""
        if num_chunks == 0:
            return 0, 0
        number, chunk, begin = self._sequence_of(np.asarray([[num_chunks - 1]]))
        num_sequences = int((number + 1).sum())
        if self._reset_every is None:
            return num_sequences, self._num_lanes * self._chunk_length * num_chunks
        whole = number * self._reset_every - np.where(number > 0, self._first_steps, 0)
        current = np.minimum((chunk + 1) * self._chunk_length, self._reset_every - begin)
        return num_sequences, int((whole + current).sum())

    def chunks_to_ask(self, num_targets: int) -> int:
        """After how many chunks so many targets were asked."""
        asked, num_chunks = 0, 0
        at_once = 1
        while asked < num_targets:
            places = self.places(np.arange(num_chunks, num_chunks + at_once))
            by_chunk = asked + np.cumsum((places.answer != NO_STEP).sum(axis=(1, 2)))
            is_enough = by_chunk >= num_targets
            num_chunks += int(is_enough.argmax()) + 1 if is_enough.any() else at_once
            asked = int(by_chunk[-1])
            # More and more, because a call costs as much as a thousand places; no more than the memory holds easily.
            at_once = min(2 * at_once, max(1, _PLACES_AT_ONCE // (self._num_lanes * self._chunk_length)))
        return num_chunks

    def _sequence_of(self, index: Integers) -> tuple[Integers, Integers, Integers]:
        """For chunks (n, 1) and lanes: the lane's how-manieth sequence, which chunk of it, and its first step."""
        index = np.broadcast_to(index, (len(index), self._num_lanes))
        if self._reset_every is None:
            return np.zeros_like(index), index, np.broadcast_to(self._first_steps, index.shape)
        chunks_first = -(-(self._reset_every - self._first_steps) // self._chunk_length)
        later, chunk = np.divmod(index - chunks_first, -(-self._reset_every // self._chunk_length))
        is_first = index < chunks_first
        return (
            np.where(is_first, 0, later + 1),
            np.where(is_first, index, chunk),
            np.where(is_first, self._first_steps, 0),
        )


def check_carry_and_cut(carry: str, cut: str) -> None:
    """Refuse unknown words, and a cut removed where there is no state to let a gradient through."""
    if carry not in CARRIES:
        raise RuleError("carry", f"$carry must be one of {', '.join(CARRIES)}", repr(carry))
    if cut not in CUTS:
        raise RuleError("cut", f"$cut must be one of {', '.join(CUTS)}", repr(cut))
    if (carry, cut) == ("reset", "sequence"):
        raise RuleError(
            "cut",
            "$cut can be 'sequence' only where $carry is 'keep'",
            "cut 'sequence' with carry 'reset'",
            reason="because a gradient crosses from batch to batch through the carried state alone",
        )


def _batches(windows: Integers, batch_size: int, cut: str) -> Integers:
    """(windows, steps) -> (chunks, batch_size, columns), the last batch filled up with empty rows."""
    num_windows, num_steps = windows.shape
    num_batches = -(-num_windows // batch_size)
    batches = np.full((num_batches * batch_size, num_steps), NO_STEP, dtype=np.int64)
    batches[:num_windows] = windows
    batches = batches.reshape(num_batches, batch_size, num_steps)
    if cut == "sequence":
        return batches.transpose(1, 0, 2).reshape(1, batch_size, num_batches * num_steps)
    return batches
