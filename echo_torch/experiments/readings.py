"""The ways of reading: what one batch holds, one class each with its options, rules, layout, evaluation and sentence.

A reading knows which step of which sequence stands where. It holds no symbols and no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from echo_torch.errors import RuleError
from echo_torch.experiments.options import option, steps_in_words

if TYPE_CHECKING:
    from echo_torch.data.framing import Frames
    from echo_torch.data.layout import LaneLayout, Layout, WindowLayout

# The layouts are imported where they are made: they bring numpy, which `--help` need not wait for.

TARGETS_PER_SEQUENCE = 25  # where there are lanes and no sequences: as many as the tutorial's sequence has steps
_SEQUENCES_AT_ONCE = 50  # read side by side, so that evaluation takes a moment; a sequence never sees another


class Bounded(NamedTuple):
    """A layout, and how many of its chunks are read."""

    layout: Layout
    num_chunks: int


@dataclass(frozen=True)
class Reading(ABC):
    """What all ways of reading have in common.

    Attributes:
        updates: Updates that the training makes.
        lag: The target is the symbol so many steps ago.
    """

    # What is carried, where the reading leaves no choice.
    carry: ClassVar[str] = "reset"
    cut: ClassVar[str] = "chunk"
    continues: ClassVar[bool] = True  # whether some row goes on where another ended, so that a state can be handed on
    max_chunks_told_apart: ClassVar[int | None] = None  # in an evaluation; None: all chunks of a sequence
    size_options: ClassVar[tuple[str, ...]]  # that make a chunk large

    if TYPE_CHECKING:
        lag: int
        updates: int | None

    @abstractmethod
    def check(self, mode: str) -> None:
        """Refuse options that do not fit together.

        Raises:
            RuleError: Naming the mode where the rule is one of its own.
        """

    @property
    @abstractmethod
    def num_updates(self) -> int:
        """How many updates the training makes."""

    @property
    @abstractmethod
    def chunk_shape(self) -> tuple[int, int]:
        """Rows and columns of a chunk in training."""

    @property
    @abstractmethod
    def sequence_length(self) -> int | None:
        """Steps between two resets; None: a lane never resets."""

    @property
    @abstractmethod
    def shortest(self) -> int:
        """Steps that a sequence needs for one question."""

    @property
    @abstractmethod
    def progress(self) -> tuple[str, str]:
        """The column of metrics.csv that tells how much data was used, and what a plot's axis calls it."""

    @property
    def online_window(self) -> int | None:
        """Steps that are read anew for each answer to an endless stream; None: the state is carried on."""
        return None

    @property
    def list_needs(self) -> tuple[int, str]:
        """How many numbers a list must have to be answered, and why."""
        return self.lag + 1, f"it echoes the one {self.lag} before"

    @abstractmethod
    def sentence(self) -> str:
        """How it reads, as a part of a sentence."""

    @abstractmethod
    def state_words(self) -> tuple[str, str]:
        """What begins from an empty state where none is handed over; from what to what it is handed over."""

    @abstractmethod
    def layout(self) -> Layout:
        """Which lane of which chunk reads which step, in training."""

    @abstractmethod
    def num_chunks(self, num_sequences: int) -> int | None:
        """Chunks that so many sequences make; None where lanes have no such number."""

    @abstractmethod
    def evaluation(self, num_sequences: int) -> Bounded:
        """What an evaluation on so many sequences reads, carried and asked as in training."""

    @abstractmethod
    def example(self) -> Bounded:
        """The first sequence of an evaluation; of lanes its first questions."""

    @abstractmethod
    def piece_length(self, num_symbols: int) -> int:
        """Steps of one sequence where so many symbols are there to be read."""

    def over_pieces(self, piece_length: int) -> Reading:
        """This reading where every sequence is a piece of a series that ends."""
        return self

    @abstractmethod
    def held_out(self, piece_length: int, num_pieces: int) -> Bounded:
        """As `evaluation`, of pieces that are each read once."""

    @abstractmethod
    def held_out_example(self, piece_length: int) -> Bounded:
        """As `example`, of the first piece."""

    @abstractmethod
    def lists(
        self, num_lists: int, length: int, *, is_carried: bool, rows_at_once: int, only_last: bool
    ) -> Iterator[Bounded]:
        """How lists are read next to each other, as sequences of the training would be.

        Args:
            num_lists: How many.
            length: Numbers in each.
            is_carried: Whether the state is handed over.
            rows_at_once: About so many rows a chunk, where that changes no answer.
            only_last: Whether it is enough to read what the answers at the last position hang on.
        """

    def one_batch_a_sequence(self) -> dict[str, Any]:
        """What to change so that one batch holds a sequence; nothing where it does, or where there is no such way."""
        return {}


@dataclass(frozen=True)
class _OfSequences(Reading):
    """Sequences of one length, each cut into rows; `sequences` or `updates` says how long the training is.

    Attributes:
        sequences: Fresh sequences that are trained on; None: `updates` says it.
        updates: Updates; None: `sequences` says it.
        length: Steps in a sequence.
        lag: The target is the symbol so many steps ago.
        batch_size: Rows per batch.
    """

    size_options: ClassVar[tuple[str, ...]] = ("batch_size", "window", "length")

    sequences: int | None = option("sequences")
    updates: int | None = option("updates")
    length: int = option("length")
    lag: int = option("lag")
    batch_size: int = option("batch_size")

    @abstractmethod
    def frames(self, length: int) -> Frames:
        """The rows that a sequence of so many steps is cut into, and what each is asked."""

    @property
    def num_rows(self) -> int:
        """Rows that a sequence makes."""
        return self.length

    @property
    def chunks_per_sequence(self) -> int:
        """Chunks, and so updates, that a sequence makes."""
        return -(-self.num_rows // self.batch_size)

    def check(self, mode: str) -> None:
        """As of `Reading`."""
        if self.sequences is None and self.updates is None:
            raise RuleError("updates", "$sequences or $updates must say how long to train", "neither")
        if self.sequences is not None and self.updates is not None:
            rule = "$sequences and $updates both say how long to train, so only one can be given"
            raise RuleError("updates", rule, f"{self.sequences} and {self.updates}")
        if self.lag >= self.length:
            rule = "$lag must be smaller than $length, or no target has an answer"
            raise RuleError("lag", rule, f"lag {self.lag} with length {self.length}")

    @property
    def num_updates(self) -> int:
        """As of `Reading`."""
        return self.num_chunks(self.sequences or 0) if self.updates is None else self.updates

    @property
    def sequence_length(self) -> int:
        """As of `Reading`."""
        return self.length

    @property
    def shortest(self) -> int:
        """As of `Reading`."""
        return self.lag + 1

    @property
    def progress(self) -> tuple[str, str]:
        """As of `Reading`."""
        return "sequences", f"sequences of {self.length} symbols drawn"

    def num_chunks(self, num_sequences: int) -> int:
        """As of `Reading`."""
        return num_sequences * self.chunks_per_sequence

    def layout(self) -> WindowLayout:
        """As of `Reading`."""
        return self._windows(self.frames(self.length), cut=self.cut)

    def evaluation(self, num_sequences: int) -> Bounded:
        """As of `Reading`."""
        most = min(_SEQUENCES_AT_ONCE, num_sequences)
        return self._side_by_side(next(n for n in range(most, 0, -1) if num_sequences % n == 0), num_sequences)

    def example(self) -> Bounded:
        """As of `Reading`."""
        return self._side_by_side(1, 1)

    def piece_length(self, num_symbols: int) -> int:
        """As of `Reading`."""
        return self.length

    def held_out(self, piece_length: int, num_pieces: int) -> Bounded:
        """As of `Reading`."""
        return self._side_by_side(min(_SEQUENCES_AT_ONCE, num_pieces), num_pieces)

    def held_out_example(self, piece_length: int) -> Bounded:
        """As of `Reading`."""
        return self.example()

    def _side_by_side(self, at_once: int, num_sequences: int) -> Bounded:
        """Batch by batch also where training has all of a sequence in one chunk.

        Without gradients the cut makes no difference to any answer, and so the batches can be told apart and the
        state reset between them.
        """
        layout = self._windows(self.frames(self.length), at_once=at_once)
        return Bounded(layout, layout.num_chunks(num_sequences))

    def _windows(self, frames: Frames, *, cut: str = "chunk", at_once: int = 1) -> WindowLayout:
        from echo_torch.data.layout import WindowLayout

        return WindowLayout(frames, self.length, self.batch_size, carry=self.carry, cut=cut, sequences_at_once=at_once)


@dataclass(frozen=True)
class Windows(_OfSequences):
    """Windows of a sequence in batches of consecutive ones, each asked at its last step: the tutorial's way.

    Attributes:
        window: Steps per window.
        carry: "keep" hands the state from batch to batch, "reset" begins each from an empty one.
        cut: "chunk" detaches at every batch, "sequence" makes one chunk of all batches of a sequence.
        num_dropped: Complete windows left out at the front. The tutorial drops one in both its lag experiments.
        is_masked: Whether there is a window for every step, and what lies before the sequence is missing.
        holds_lag: Whether the answer must lie inside the window.
    """

    window: int = option("window")
    carry: str = option("carry")  # type: ignore[misc]  # a choice here
    cut: str = option("cut")  # type: ignore[misc]
    num_dropped: int = 0
    is_masked: bool = False
    holds_lag: bool = False

    def frames(self, length: int) -> Frames:
        """The windows, without those that are dropped."""
        from echo_torch.data.framing import frame_masked, frame_windows

        if self.is_masked:
            return frame_masked(length, self.window, self.lag)
        return frame_windows(length, self.window, self.lag, num_dropped=self.num_dropped)

    @property
    def num_rows(self) -> int:
        """Windows that a sequence makes."""
        return self.length if self.is_masked else self.length - self.window + 1 - self.num_dropped

    @property
    def chunks_per_sequence(self) -> int:
        """Chunks, and so updates, that a sequence makes."""
        return 1 if self.cut == "sequence" else super().chunks_per_sequence

    def check(self, mode: str) -> None:
        """As of `Reading`."""
        if self.holds_lag and self.lag >= self.window:
            rule = f"$lag must be smaller than $window in mode {mode}"
            got = f"lag {self.lag} with window {self.window}"
            raise RuleError("lag", rule, got, reason="so that the answer lies inside the window")
        if self.num_rows < 1:
            needed, after = "window", ""
            if self.num_dropped:
                needed, after = "window + 1", " after the first, which the tutorial drops"
            rule = f"$length must be at least {needed} = {self.window + self.num_dropped} in mode {mode}"
            raise RuleError("length", rule, self.length, reason=f"so that a window is left{after}")
        super().check(mode)
        from echo_torch.data.layout import check_carry_and_cut

        check_carry_and_cut(self.carry, self.cut)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """As of `Reading`."""
        batches = -(-self.length // self.batch_size) if self.cut == "sequence" else 1
        return self.batch_size, self.window * batches

    @property
    def shortest(self) -> int:
        """As of `Reading`."""
        return max(self.window + self.num_dropped, self.lag + 1)

    @property
    def online_window(self) -> int | None:
        """As of `Reading`."""
        return self.window if self.window > 1 or self.carry == "reset" else None

    @property
    def list_needs(self) -> tuple[int, str]:
        """As of `Reading`."""
        if self.is_masked or self.window <= self.lag:
            return super().list_needs
        return self.window, f"its windows have {self.window} steps"

    def sentence(self) -> str:
        """As of `Reading`."""
        windows = "single steps" if self.window == 1 else f"windows of {self.window} steps"
        before = ", what lies before the sequence missing" if self.is_masked else ""
        return f"{windows} in batches of {self.batch_size}{before}, {_state_at_every_batch(self.carry)}"

    def state_words(self) -> tuple[str, str]:
        """As of `Reading`."""
        return f"window of {self.window}", f"batch to batch, windows of {self.window} in batches of {self.batch_size}"

    def lists(
        self, num_lists: int, length: int, *, is_carried: bool, rows_at_once: int, only_last: bool
    ) -> Iterator[Bounded]:
        """As of `Reading`. A window that is dropped in training is answered too, from an empty state."""
        from echo_torch.data.framing import Frames
        from echo_torch.data.layout import WindowLayout

        def rows(frames: Frames, which: slice) -> Frames:
            return Frames(frames.steps[which], frames.answers[which])

        frames = replace(self, num_dropped=0).frames(length)
        dropped, kept = rows(frames, slice(self.num_dropped)), rows(frames, slice(self.num_dropped, None))
        batch_size = self.batch_size if is_carried else max(1, rows_at_once // num_lists)
        if only_last and len(kept.steps):
            # The last window and those before it that handed their state on to it.
            chosen = slice((len(kept.steps) - 1) % batch_size, None, batch_size) if is_carried else slice(-1, None)
            dropped, kept, batch_size = rows(kept, slice(0)), rows(kept, chosen), 1
        for part, carry in ((dropped, "reset"), (kept, "keep" if is_carried else "reset")):
            if len(part.steps):
                layout = WindowLayout(part, length, batch_size, carry=carry, sequences_at_once=num_lists)
                yield Bounded(layout, layout.num_chunks(num_lists))

    def one_batch_a_sequence(self) -> dict[str, Any]:
        """As of `Reading`."""
        return {"batch_size": self.num_rows} if self.num_rows > self.batch_size else {}


@dataclass(frozen=True)
class _FromTheBeginning(_OfSequences):
    """Every row begins with the sequence and an empty state."""

    continues = False
    size_options = ("batch_size", "length")

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """As of `Reading`."""
        return self.batch_size, self.length

    def state_words(self) -> tuple[str, str]:
        """As of `Reading`."""
        return "list, read in one pass", ""

    def lists(
        self, num_lists: int, length: int, *, is_carried: bool, rows_at_once: int, only_last: bool
    ) -> Iterator[Bounded]:
        """As of `Reading`."""
        yield _in_one_pass(num_lists, length, self.lag, rows_at_once)


@dataclass(frozen=True)
class Prefixes(_FromTheBeginning):
    """For every step a row with the sequence as it has unfolded so far, asked at its last step."""

    def frames(self, length: int) -> Frames:
        """As of `_OfSequences`."""
        from echo_torch.data.framing import frame_prefixes

        return frame_prefixes(length, self.lag)

    def sentence(self) -> str:
        """As of `Reading`."""
        return f"the sequence so far, 1 to {self.length} steps, in batches of {self.batch_size}"


@dataclass(frozen=True)
class Sequences(_FromTheBeginning):
    """The whole sequence as one row, asked at every step; a batch holds several sequences."""

    def frames(self, length: int) -> Frames:
        """As of `_OfSequences`."""
        from echo_torch.data.framing import frame_sequence

        return frame_sequence(length, self.lag)

    def num_chunks(self, num_sequences: int) -> int:
        """As of `Reading`."""
        return -(-num_sequences // self.batch_size)

    def sentence(self) -> str:
        """As of `Reading`."""
        together = "" if self.batch_size == 1 else f", {self.batch_size} sequences at a time"
        return f"the whole sequence of {steps_in_words(self.length)} in one pass{together}, asked at every step"

    def layout(self) -> WindowLayout:
        """As of `Reading`."""
        return self._windows(self.frames(self.length), at_once=self.batch_size)

    def _windows(self, frames: Frames, *, cut: str = "chunk", at_once: int = 1) -> WindowLayout:
        from echo_torch.data.layout import WindowLayout

        return WindowLayout(frames, self.length, 1, carry=self.carry, sequences_at_once=at_once)


@dataclass(frozen=True)
class Lanes(Reading):
    """Lanes that go on reading where they stopped, chunk after chunk, asked at every step.

    Attributes:
        updates: Updates that the training makes.
        lag: The target is the symbol so many steps ago.
        lanes: Sequences read side by side.
        chunk: Steps that a lane reads per update.
        reset_every: Steps after which a lane begins a new sequence; None: never.
        stagger: Whether the lanes reset at different chunks.
        carry: "keep" hands the state from chunk to chunk, "reset" begins each from an empty one.
    """

    max_chunks_told_apart = 10
    size_options = ("lanes", "chunk")

    updates: int | None = option("updates")
    lag: int = option("lag")
    lanes: int = option("lanes")
    chunk: int = option("chunk")
    reset_every: int | None = option("reset_every")
    stagger: bool = option("stagger")
    carry: str = option("carry")  # type: ignore[misc]  # a choice here

    def check(self, mode: str) -> None:
        """As of `Reading`."""
        if self.updates is None:
            raise RuleError("updates", f"$updates must be given in mode {mode}", reason="because lanes have no end")
        if self.reset_every is None:
            if self.stagger:
                rule = "$stagger needs $reset_every: lanes that never reset cannot do so at different chunks"
                raise RuleError("stagger", rule)
        elif self.lag >= self.reset_every:
            rule = "$lag must be smaller than $reset_every, or no target has an answer"
            raise RuleError("lag", rule, f"lag {self.lag} with a reset every {steps_in_words(self.reset_every)}")

    @property
    def num_updates(self) -> int:
        """As of `Reading`."""
        return self.updates or 0

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """As of `Reading`."""
        return self.lanes, self.chunk

    @property
    def sequence_length(self) -> int | None:
        """As of `Reading`."""
        return self.reset_every

    @property
    def shortest(self) -> int:
        """As of `Reading`."""
        return self.lag + 1

    @property
    def progress(self) -> tuple[str, str]:
        """As of `Reading`."""
        return "symbols", "fresh symbols drawn"

    def sentence(self) -> str:
        """As of `Reading`."""
        lanes = f"{self.lanes} lane{'s' * (self.lanes != 1)}"
        return f"{lanes}, {steps_in_words(self.chunk)} of each at a time, {_state_at_every_batch(self.carry)}"

    def state_words(self) -> tuple[str, str]:
        """As of `Reading`."""
        return f"chunk of {self.chunk}", f"chunk to chunk of {self.chunk}"

    def layout(self) -> LaneLayout:
        """As of `Reading`."""
        from echo_torch.data.layout import LaneLayout

        first_steps = None
        if self.stagger and self.reset_every is not None:
            # Spread evenly over a sequence, so that about the same number of lanes resets at every chunk.
            first_steps = [lane * self.reset_every // self.lanes for lane in range(self.lanes)]
        return LaneLayout(
            self.lanes, self.chunk, self.lag, reset_every=self.reset_every, first_steps=first_steps, carry=self.carry
        )

    def num_chunks(self, num_sequences: int) -> None:
        """As of `Reading`: lanes have no such number."""

    def evaluation(self, num_sequences: int) -> Bounded:
        """As of `Reading`: chunks until 25 targets were asked for each sequence."""
        layout = self.layout()
        return Bounded(layout, layout.chunks_to_ask(TARGETS_PER_SEQUENCE * num_sequences))

    def example(self) -> Bounded:
        """As of `Reading`."""
        return replace(self, lanes=1, stagger=False).evaluation(1)

    def piece_length(self, num_symbols: int) -> int:
        """As of `Reading`: each lane reads a part; where the parts are over, all begin again."""
        return self.reset_every or max(1, -(-num_symbols // self.lanes))

    def over_pieces(self, piece_length: int) -> Lanes:
        """As of `Reading`."""
        return replace(self, reset_every=piece_length)

    def held_out(self, piece_length: int, num_pieces: int) -> Bounded:
        """As of `Reading`."""
        lanes = min(self.lanes, num_pieces)
        layout = replace(self, lanes=lanes, reset_every=piece_length).layout()
        return Bounded(layout, -(-num_pieces // lanes) * -(-piece_length // self.chunk))

    def held_out_example(self, piece_length: int) -> Bounded:
        """As of `Reading`."""
        layout = replace(self, lanes=1, stagger=False, reset_every=piece_length).layout()
        return Bounded(layout, -(-min(piece_length, TARGETS_PER_SEQUENCE + self.lag) // self.chunk))

    def lists(
        self, num_lists: int, length: int, *, is_carried: bool, rows_at_once: int, only_last: bool
    ) -> Iterator[Bounded]:
        """As of `Reading`."""
        from echo_torch.data.layout import LaneLayout

        if is_carried:
            yield _in_one_pass(num_lists, length, self.lag, rows_at_once)
            return
        layout = LaneLayout(num_lists, self.chunk, self.lag, carry="reset")
        yield Bounded(layout, -(-length // self.chunk))


def _in_one_pass(num_lists: int, length: int, lag: int, rows_at_once: int) -> Bounded:
    """Lists read to their end from an empty state: the answers are those of any chunks, and long ones are quick."""
    from echo_torch.data.layout import LaneLayout

    chunk = min(length, max(1, rows_at_once // num_lists))
    return Bounded(LaneLayout(num_lists, chunk, lag), -(-length // chunk))


def _state_at_every_batch(carry: str) -> str:
    return {"keep": "the state carried", "reset": "the state reset"}[carry] + " at every batch"
