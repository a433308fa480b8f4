"""Lanes followed through chunks: what each had read when it was asked, added up part by part.

Between two parts only this is kept: where each lane stands, and which steps it has read since its reset, as spans.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.data_path.columns import (
    Columns,
    Piece,
    Spans,
    columns_of,
    lane_of,
    last_places,
    lives_of,
    piece_of,
)
from echo_torch.diagnosis.data_path.first_reads import FirstReads, mark_reachable
from echo_torch.diagnosis.stamps import CheckedStamps
from echo_torch.errors import RuleError

_COLUMNS_AT_ONCE = 2**20  # of a part


class Followed:
    """What is found by following lanes, chunk after chunk.

    Args:
        lag: How many steps back the answers lie; None: where the stamps say, or nobody knows.
        max_lag: The largest lag that is looked for.

    Attributes:
        lag: As it is given.
        gaps: How often each gap lies between two successive reads of a sequence.
        num_other: Hand-overs into another sequence.
        borders: As `gaps`, of the hand-overs from a chunk to a later one, or from a buffer.
        num_other_at_borders: As `num_other`, of these.
        is_reachable: bool (max_lag + 1,), the lags for which some asked target's symbol had been read.
        asked: Targets that were asked.
        read_before: Those whose answers the lane had read since its reset.
        read_in_chunk: Those whose answers were read inside the very chunk.
        before_start: Those of which an answer lies before the sequence begins, or before the first step of all that
            the lane reads.
        num_chunks: Chunks that were followed.
        rows: How many chunks have each number of rows.
        row_changes: Chunks, by number, with another number of rows than the one before, without a reset of all.
    """

    def __init__(self, lag: int | None, max_lag: int) -> None:
        self.lag = lag
        self.gaps: Counter[int] = Counter()
        self.borders: Counter[int] = Counter()
        self.num_other = self.num_other_at_borders = 0
        self.is_reachable = np.zeros(max_lag + 1, np.bool_)
        self.asked = self.read_before = self.read_in_chunk = self.before_start = self.num_chunks = 0
        self.rows: Counter[int] = Counter()
        self.row_changes: list[int] = []
        self._num_rows: int | None = None
        self._num_answers: int | None = None
        self._first: dict[int, tuple[int, ...]] = {}  # of each lane, where it begins to read
        self._resets = np.zeros(0, np.int64)  # of each lane, so far
        self._pieces: list[Piece] = []
        self._spans = Spans.none()
        self._num_columns = 0

    def add(self, stamps: CheckedStamps) -> None:
        """Follow some more chunks of one shape.

        Args:
            stamps: With one axis more, the chunks, before the others.
        """
        num_chunks, num_lanes, _ = stamps.step.shape
        self._count_rows(
            num_chunks, num_lanes, is_reset=bool((stamps.starts[0, :, 0] | (stamps.restored[0, :, 0] >= 0)).all())
        )
        self._resets = np.append(self._resets, np.zeros(max(0, num_lanes - len(self._resets)), np.int64))
        piece, self._resets[:num_lanes] = piece_of(stamps, self._resets[:num_lanes], self._answers(stamps))
        self.num_chunks += num_chunks
        self._pieces.append(piece)
        self._num_columns += piece.step.size
        if self._num_columns >= _COLUMNS_AT_ONCE:
            self.close()

    @property
    def knows_answers(self) -> bool:
        """Whether it is known where answers lie."""
        return self.lag is not None or bool(self._num_answers)

    def _count_rows(self, num_chunks: int, num_rows: int, *, is_reset: bool) -> None:
        if self._num_rows is not None and num_rows != self._num_rows and not is_reset:
            self.row_changes.append(self.num_chunks)
        self._num_rows = num_rows
        self.rows[num_rows] += num_chunks

    def _answers(self, stamps: CheckedStamps) -> Integers:
        """Where the answers lie, (chunks, lanes, steps, answers); as many everywhere, or none."""
        num_answers = stamps.answers.shape[-1]
        if self.lag is None:
            if self._num_answers not in (None, num_answers):
                raise RuleError(
                    "stamps",
                    "$stamps must return $answers with as many answers for each batch, or for none",
                    f"{self._num_answers} and {num_answers}",
                    way_out="repeat an answer where fewer are needed",
                )
            self._num_answers = num_answers
            return stamps.answers
        if num_answers:
            rule = "$lag must be None where $stamps gives $answers"
            raise RuleError("lag", rule, self.lag, reason="because both say where answers lie")
        return (stamps.step - self.lag)[..., None]

    def close(self) -> None:
        """Count what has been added."""
        if not self._pieces:
            return
        columns, stretch_of_spans = columns_of(self._pieces, self._spans)
        self._count_gaps(columns.where(columns.step >= 0))
        reads, put_in = columns.where(columns.is_read), columns.where(columns.is_put_in)
        spans = (
            np.append(stretch_of_spans, put_in.stretch),
            np.append(self._spans.low, np.zeros(len(put_in.step), np.int64)),
            np.append(self._spans.high, put_in.step),
        )
        first_reads = FirstReads(reads.stretch, reads.step, reads.time, spans)
        self._note_first(columns)
        asks = columns.where(columns.is_asked)
        if len(asks.step):
            self._count_answers(asks, first_reads, FirstReads(reads.visit, reads.step, reads.time))
        self._keep(columns, stretch_of_spans, first_reads)

    def _keep(self, columns: Columns, stretch_of_spans: Integers, first_reads: FirstReads) -> None:
        """Where the lanes stand, and what they have read, for the next part."""
        lives = lives_of(self._resets)
        stretch, low, high = first_reads.spans()
        life, sequence = np.zeros((2, int(stretch.max(initial=-1)) + 1), np.int64)
        for known, numbers in ((columns, columns.stretch), (self._spans, stretch_of_spans)):
            is_asked_for = numbers < len(life)
            life[numbers[is_asked_for]] = known.life[is_asked_for]
            sequence[numbers[is_asked_for]] = known.sequence[is_asked_for]
        spans = Spans(life[stretch], sequence[stretch], low, high)
        self._spans = spans.where(lives[lane_of(spans.life)] == spans.life)
        self._pieces, self._num_columns = [last_places(columns, lives)], 0

    def _count_answers(self, asks: Columns, first_reads: FirstReads, in_chunk: FirstReads) -> None:
        self.asked += len(asks.step)
        self.before_start += int((asks.answers < self._begins(asks)[:, None]).any(axis=1).sum())
        if asks.answers.shape[1]:
            self.read_before += first_reads.count(asks.stretch, asks)
            self.read_in_chunk += in_chunk.count(asks.visit, asks)
        mark_reachable(self.is_reachable, first_reads, asks)

    def _note_first(self, columns: Columns) -> None:
        """Remember where each lane begins to read: life, sequence and step, and the time if it is in this part.

        A state that is put in has read from the beginning.
        """
        self._first = {lane: (*first, -1) for lane, (*first, _) in self._first.items()}
        if len(self._first) == len(self._resets):
            return
        places = np.flatnonzero(columns.is_read | columns.is_put_in)[::-1]
        first = np.full(len(self._resets), -1)
        first[lane_of(columns.life[places])] = places  # of a lane that is named often, the first place stays
        step = np.where(columns.is_put_in, 0, columns.step)
        for lane in np.flatnonzero(first >= 0).tolist():
            fields = (columns.life, columns.sequence, step, columns.time)
            self._first.setdefault(lane, tuple(int(field[first[lane]]) for field in fields))

    def _begins(self, asks: Columns) -> Integers:
        """Where the lane of each question began to read, as far as it is asked in its first life; else 0."""
        first = np.full((4, len(self._resets)), -1)
        for number, fields in self._first.items():
            first[:, number] = fields
        life, sequence, step, time = first
        lane = lane_of(asks.life)
        is_of_first = (asks.life == life[lane]) & (asks.sequence == sequence[lane]) & (asks.time >= time[lane])
        return np.where(is_of_first, step[lane], 0)

    def _count_gaps(self, reads: Columns) -> None:
        order = np.argsort(reads.life, kind="stable")
        life, sequence, step, row = (values[order] for values in (reads.life, reads.sequence, reads.step, reads.row))
        is_hand_over = life[1:] == life[:-1]
        is_same = sequence[1:] == sequence[:-1]
        is_border = (row[1:] != row[:-1]) | reads.is_put_in[order][:-1]
        gap = step[1:] - step[:-1] - 1
        self.gaps.update(_counted(gap[is_hand_over & is_same]))
        self.borders.update(_counted(gap[is_hand_over & is_same & is_border]))
        self.num_other += int((is_hand_over & ~is_same).sum())
        self.num_other_at_borders += int((is_hand_over & ~is_same & is_border).sum())


def _counted(values: Integers) -> dict[int, int]:
    numbers, counts = np.unique(values, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))
