"""What a training will read, for people, before anything is trained: a sequence, its vectors, then chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.data.chunk_text import (
    EMPTY,
    NOTHING,
    UNREADABLE,
    RowText,
    in_columns,
    more_rows_line,
    rows_as_text,
    runs_in_words,
    steps_in_words,
)
from echo_torch.data.layout import UNUSED_ROW
from echo_torch.data.stream import EchoStream
from echo_torch.diagnosis.data_path.reaching import reach
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.options import is_own_model
from echo_torch.lab.plan import Plan
from echo_torch.lab.vectors import vector_lines

_FEW_CHUNKS = 6  # that are shown of a long sequence
_CHUNKS_WITHOUT_END = 3  # that are shown of lanes that are never reset
_FEW_SYMBOLS = 30  # of a longer sequence so many are shown


@dataclass(frozen=True)
class Preview:
    """The beginning of what a training reads.

    Attributes:
        configuration: Of the training.
        symbols: The first symbols of sequence 0.
        is_whole: Whether these are all that it has.
        chunks: The first chunks.
        missing: For each of them bool (lanes, steps), where a symbol stands that cannot be read.
        following: The chunk after them; None: the training ends there.
    """

    configuration: Configuration
    symbols: list[int]
    is_whole: bool
    chunks: list[Chunk]
    missing: list[Tensor]
    following: Chunk | None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; None where nothing is read, nothing is asked, or a row is not used."""
        chunks = [_as_dict(chunk, missing) for chunk, missing in zip(self.chunks, self.missing, strict=True)]
        options = self.configuration.to_dict()
        return {"options": options, "symbols": self.symbols, "is_whole": self.is_whole, "chunks": chunks}


def preview(plan: Plan, num_chunks: int | None = None) -> Preview:
    """The beginning of what a training reads, from the very stream that it would read.

    Args:
        plan: Of the training.
        num_chunks: How many chunks, no more than the training has updates; None: those of a sequence, if they are few.

    Raises:
        UserError: If the user's own data cannot be read or do not fit.
    """
    stream = plan.training()
    number = min(_usual_number(plan) if num_chunks is None else num_chunks, plan.num_updates)
    # The same stream, of which nothing is missing: where only this one has a symbol, it cannot be read.
    whole = EchoStream(stream.layout, stream.source)
    both = islice(zip(stream, whole, strict=True), number + 1)
    chunks, missing = zip(*((one, (one.symbols < 0) & (other.symbols >= 0)) for one, other in both), strict=True)
    symbols, is_whole = _first_symbols(plan, stream, chunks[:number])
    following = chunks[number] if number < plan.num_updates else None
    return Preview(plan.configuration, symbols, is_whole, [*chunks[:number]], [*missing[:number]], following)


def preview_lines(found: Preview) -> list[str]:
    """A preview for people who have never seen a stateful network.

    Args:
        found: The preview.
    """
    c, shown = found.configuration, found.symbols
    number = f"{len(shown)} symbol{'s' * (len(shown) != 1)}"
    vectors = [] if is_own_model(c.model) else vector_lines(shown, c.vocabulary_size, c.base)
    blocks = list(_chunk_blocks(found))
    marks = {
        "carried": "row i goes on with the state that row i of the chunk before has left",
        "reset": "row i begins with an empty state",
        **_marks([line for block in blocks for line in block[1:]]),
    }
    return [
        f"sequence 0, {number if found.is_whole else f'its first {number}'}: {shown}",
        *vectors,
        "",
        "X -> y, chunk by chunk; a chunk is what one batch holds, and one update",
        *in_columns([[f"  {mark}", meaning] for mark, meaning in marks.items()]),
        "",
        *(line for block in blocks for line in block),
        _following_line(found),
        _answers_line(found),
    ]


def _following_line(found: Preview) -> str:
    if found.following is None:
        number = len(found.chunks)
        return f"then the training ends, after {number:,} update{'s' * (number != 1)}"
    return f"then {_head(found.following, found.chunks[-1].index)}"


def _answers_line(found: Preview) -> str:
    """How many of the answers a row has read itself."""
    seen = reach(found.chunks, found.configuration.reading.lag, is_repeated=False)
    if seen.reachable_share is None:
        return "nothing is asked in these chunks"
    number = round(seen.reachable_share * seen.targets)
    return f"answers in these chunks that their own row has read since its reset: {number:,} of {seen.targets:,}"


def _usual_number(plan: Plan) -> int:
    reading = plan.reading
    if (number := reading.num_chunks(1)) is None:  # lanes
        steps = reading.sequence_length
        number = _CHUNKS_WITHOUT_END if steps is None else -(-steps // plan.layout.num_steps)
    return min(number, _FEW_CHUNKS)


def _first_symbols(plan: Plan, stream: EchoStream, chunks: Sequence[Chunk]) -> tuple[list[int], bool]:
    """The first symbols of sequence 0, and whether these are all that it has."""
    length = plan.reading.sequence_length
    read = 1 + max(int(chunk.step[0].max()) for chunk in chunks)  # row 0 reads it; of one without end this is shown
    number = min(_FEW_SYMBOLS, length or read)
    values = stream.source(np.zeros(1, dtype=np.int64), np.arange(number)).tolist()
    symbols = [symbol for symbol in values if symbol >= 0]
    return symbols, length is not None and (length <= number or len(symbols) < number)


def _chunk_blocks(found: Preview) -> Iterator[list[str]]:
    """For each chunk its lines, the first of which says what becomes of the state."""
    last: dict[int, tuple[int, int]] = {}
    before = None
    for chunk, missing in zip(found.chunks, found.missing, strict=True):
        rows = rows_as_text(chunk, missing)
        is_one = len(_sequences(chunk)) == 1
        table = [_parts(row, chunk, last.get(row.number), is_one=is_one) for row in rows]
        if before is None:
            table.insert(0, ["", "where", "X", "-> y", "state"])
        yield [_head(chunk, before), *in_columns(table), *more_rows_line(chunk, rows)]
        before = chunk.index
        last.update((row.number, _end(chunk, row.number)) for row in rows if row.is_used)


def _head(chunk: Chunk, before: int | None) -> str:
    """Which sequences a chunk reads, and what becomes of the state before it."""
    sequences, is_used = _sequences(chunk), chunk.sequence >= 0
    which = f"chunk {chunk.index}, sequence{'s' * (len(sequences) > 1)} {runs_in_words(sequences)}"
    num_reset, num_used = int((chunk.starts & is_used).sum()), int(is_used.sum())
    if num_reset == num_used:
        return f"{which}: reset, every row begins with an empty state"
    if not num_reset:
        return f"{which}: carried, every row goes on with the state that it has left in chunk {before}"
    return f"{which}: reset in {num_reset:,} of {num_used:,} rows, carried in the others"


def _sequences(chunk: Chunk) -> list[int]:
    """The sequences that are read, in order."""
    return sorted({*chunk.sequence.tolist()} - {UNUSED_ROW})


def _parts(row: RowText, chunk: Chunk, last: tuple[int, int] | None, *, is_one: bool) -> list[str]:
    if not row.is_used:
        return [f"  row {row.number}", "not used", "", "", ""]
    where = row.steps if is_one else f"sequence {row.sequence}, {row.steps}"
    first = int(chunk.step[row.number][chunk.step[row.number] >= 0][0])
    state = "reset" if row.is_reset or last is None else _hand_over(row.sequence, first, *last)
    return [f"  row {row.number}", where, row.read, row.asked, state]


def _hand_over(sequence: int, first: int, last_sequence: int, last: int) -> str:
    """From where a state comes, and which steps the row does not read, or reads again."""
    if sequence != last_sequence:
        return f"carried from step {last} of sequence {last_sequence}"
    jump = ""
    if first > last + 1:
        jump = f", skips {steps_in_words(torch.arange(last + 1, first))}"
    elif first <= last:
        jump = f", reads {steps_in_words(torch.arange(first, last + 1))} again"
    return f"carried from step {last}{jump}"


def _end(chunk: Chunk, row: int) -> tuple[int, int]:
    """The sequence and the step that a row has read last."""
    read = chunk.step[row][chunk.step[row] >= 0]
    return int(chunk.sequence[row]), int(read[-1])


def _marks(lines: Sequence[str]) -> dict[str, str]:
    """What the marks in these lines stand for, those that occur."""
    words = {word for line in lines for word in line.split()}
    meanings = {
        NOTHING: "nothing is read, or nothing is asked",
        UNREADABLE: "a symbol that is missing: it cannot be read, and its echo is asked all the same",
        EMPTY: "columns behind the end of a row",
    }
    return {mark: meaning for mark, meaning in meanings.items() if mark in words}


def _as_dict(chunk: Chunk, missing: Tensor) -> dict[str, Any]:
    """A chunk as lists, None where a number stands for nothing."""
    nothing = {"symbols": -1, "targets": NOT_ASKED, "sequence": -1, "step": -1}
    fields = {name: _with_none(getattr(chunk, name).tolist(), value) for name, value in nothing.items()}
    return {"index": chunk.index, "starts": chunk.starts.tolist(), **fields, "missing": missing.tolist()}


def _with_none(values: list[Any], nothing: int) -> list[Any]:
    return [
        _with_none(value, nothing) if isinstance(value, list) else None if value == nothing else value
        for value in values
    ]
