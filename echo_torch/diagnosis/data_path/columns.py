"""Columns of many chunks as flat arrays, with numbers that say which belong together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.stamps import NOT_PUT_IN, CheckedStamps

Booleans = NDArray[np.bool_]


_LANES = 2**32  # a life is the number of the lane, and this for each reset that it has had


class Columns(NamedTuple):
    """Columns of chunks, one after another, rows unravelled: arrays of one length.

    `stretch` numbers what one lane reads of one sequence between two resets, `visit` the part of it in one chunk,
    `life` what one lane reads between two resets of whatever sequence, `row` the rows of all chunks. `time` rises in
    the order of reading, and so does the place in the arrays, of each lane. `answers` has an axis more.

    A state that is put in from a buffer begins a life, with a column of its own before the others: its step is the last
    one that the state has read, though this lane has not.
    """

    stretch: Integers
    visit: Integers
    life: Integers
    row: Integers
    sequence: Integers
    time: Integers
    step: Integers
    is_read: Booleans
    is_asked: Booleans
    is_put_in: Booleans
    answers: Integers

    def where(self, mask: Booleans) -> Columns:
        """Some of them."""
        return self if mask.all() else Columns._make(field[mask] for field in self)


class Piece(NamedTuple):
    """Chunks of one shape, (chunks, lanes, steps), the answers with an axis more; life and sequence may have one step.

    Where each row has one life and one sequence, a million columns are numbered by their rows.
    """

    life: Integers
    sequence: Integers
    step: Integers
    is_read: Booleans
    is_asked: Booleans
    is_put_in: Booleans
    answers: Integers


class Spans(NamedTuple):
    """Steps that were read, from `low` to `high`, each span of one stretch: arrays of one length."""

    life: Integers
    sequence: Integers
    low: Integers
    high: Integers

    @classmethod
    def none(cls) -> Spans:
        """No spans."""
        return cls(*(np.zeros(0, np.int64) for _ in cls._fields))

    def where(self, mask: Booleans) -> Spans:
        """Some of them."""
        return Spans._make(field[mask] for field in self)


def lives_of(resets: Integers) -> Integers:
    """The life that each lane leads, (lanes,), or (chunks, lanes, steps) for as many resets."""
    lanes = np.arange(len(resets)) if resets.ndim == 1 else np.arange(resets.shape[1])[:, None]
    return lanes + _LANES * resets


def piece_of(stamps: CheckedStamps, resets: Integers, answers: Integers) -> tuple[Piece, Integers]:
    """Chunks as a piece, and how often each lane has been reset after them.

    Args:
        stamps: With one axis more, the chunks, before the others.
        resets: (lanes,), how often each has been reset before.
        answers: (chunks, lanes, steps, answers).
    """
    step, is_put_in = stamps.step, stamps.restored >= 0
    num_steps = step.shape[2] if stamps.starts.shape != is_put_in.shape else 1
    begins = _first_only(stamps.starts, num_steps, False) | _first_only(is_put_in, num_steps, False)
    number = resets[:, None] + _counted_in_time(begins)
    nowhere = np.broadcast_to(np.False_, step.shape)
    piece = Piece(lives_of(number), stamps.sequence, step, stamps.is_read, stamps.is_asked, nowhere, answers)
    if is_put_in.any():
        piece = _with_states_put_in(piece, stamps.restored)
    return piece, number[-1, :, -1]


def columns_of(pieces: list[Piece], spans: Spans) -> tuple[Columns, Integers]:
    """All columns of some pieces, and the stretch of each span."""
    runs = [_runs_of(piece) for piece in pieces]
    first_rows = np.cumsum([0, *(piece.step.shape[0] * piece.step.shape[1] for piece in pieces)])
    row = np.concatenate([own + first for (own, *_), first in zip(runs, first_rows, strict=False)])
    life, sequence, width = (np.concatenate([run[field] for run in runs]) for field in range(1, 4))
    number = _numbered(np.append(life, spans.life), np.append(sequence, spans.sequence))
    stretch, stretch_of_spans = number[: len(life)], number[len(life) :]
    visit = row if len(row) == first_rows[-1] else _numbered(row, stretch)  # most rows are one run
    of_runs = (stretch, visit, life, row, sequence)
    clock, times = 0, []
    for piece in pieces:
        num_chunks, _, num_steps = piece.step.shape
        begins = clock + num_steps * np.arange(num_chunks)
        times.append(np.broadcast_to(begins[:, None, None] + np.arange(num_steps), piece.step.shape).ravel())
        clock += num_chunks * num_steps
    fields = (np.concatenate([piece[field].ravel() for piece in pieces]) for field in range(2, 6))
    answers = (piece.answers.reshape(piece.step.size, piece.answers.shape[-1]) for piece in pieces)
    of_columns = [np.repeat(values, width) for values in of_runs]
    columns = Columns._make([*of_columns, np.concatenate(times), *fields, np.concatenate(list(answers))])
    return columns, stretch_of_spans


def last_places(columns: Columns, lives: Integers) -> Piece:
    """A chunk of one column, which holds where each of these lives stands, and nothing where one has read nothing."""
    places = np.flatnonzero(columns.step >= 0)
    last = np.full(len(lives), -1)
    last[lane_of(columns.life[places])] = places  # of a lane that is named often, the last place stays
    is_known = (last >= 0) & (columns.life[last] == lives)
    step, sequence = np.full((2, 1, len(lives), 1), -1)
    step[0, is_known, 0], sequence[0, is_known, 0] = (
        field[last[is_known]] for field in (columns.step, columns.sequence)
    )
    nowhere = np.zeros(step.shape, np.bool_)
    answers = np.zeros((*step.shape, columns.answers.shape[1]), np.int64)
    return Piece(lives[None, :, None], sequence, step, nowhere, nowhere, nowhere, answers)


def lane_of(life: Integers) -> Integers:
    """The lane that leads each life."""
    return life % _LANES


def _first_only(values: NDArray[Any], num_steps: int, nothing: Any) -> NDArray[Any]:
    """(chunks, lanes, 1), before the first column, as (chunks, lanes, steps); what has steps stays as it is."""
    if values.shape[2] == num_steps or num_steps == 1:
        return values
    wide = np.full((*values.shape[:2], num_steps), nothing, values.dtype)
    wide[..., :1] = values
    return wide


def _counted_in_time(begins: Booleans) -> Integers:
    """How many there have been, of each lane, up to each column, the chunks one after another."""
    if begins.shape[2] == 1:
        return np.cumsum(begins, axis=0, dtype=np.int64)
    num_chunks, num_lanes, num_steps = begins.shape
    in_time = np.cumsum(begins.transpose(0, 2, 1).reshape(-1, num_lanes), axis=0, dtype=np.int64)
    return in_time.reshape(num_chunks, num_steps, num_lanes).transpose(0, 2, 1)


def _with_states_put_in(piece: Piece, restored: Integers) -> Piece:
    """A column before each, which holds the last step of the state that is put in there, and nothing where none is."""
    put_in = _first_only(restored, piece.step.shape[2], NOT_PUT_IN)

    def before_each(field: NDArray[Any], before: Any) -> NDArray[Any]:
        whole = np.broadcast_to(field, piece.step.shape + field.shape[3:])
        both = np.stack([np.broadcast_to(before, whole.shape), whole], axis=3)
        return both.reshape(*whole.shape[:2], 2 * whole.shape[2], *whole.shape[3:])

    before = (piece.life, piece.sequence, put_in, False, False, put_in >= 0, -1)
    return Piece._make(before_each(*pair) for pair in zip(piece, before, strict=True))


def _runs_of(piece: Piece) -> tuple[Integers, Integers, Integers, Integers]:
    """Columns of a row that share life and sequence, together: the row, the life, the sequence, how many there are."""
    num_chunks, num_lanes, num_steps = piece.step.shape
    if piece.life.shape[2] == piece.sequence.shape[2] == 1:
        num_rows = num_chunks * num_lanes
        return np.arange(num_rows), piece.life.ravel(), piece.sequence.ravel(), np.full(num_rows, num_steps)
    life, sequence = (np.broadcast_to(field, piece.step.shape) for field in (piece.life, piece.sequence))
    is_new = np.ones(piece.step.shape, np.bool_)
    is_new[..., 1:] = (np.diff(life) != 0) | (np.diff(sequence) != 0)
    begins = np.flatnonzero(is_new)
    return begins // num_steps, life[is_new], sequence[is_new], np.diff(begins, append=is_new.size)


def _numbered(first: Integers, second: Integers) -> Integers:
    """The same number for each pair of two numbers, from 0 on, rising with the first."""
    order = np.lexsort((second, first))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(is_new) - 1
    return number
