"""A chunk for people: for each row what it reads and is asked, without the numbers that stand for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.waiting import size_in_words

NOTHING, UNREADABLE, BETWEEN, EMPTY = ".", "?", "...", "empty"
_ALL_ROWS, _FEW_ROWS = 8, 6  # of more than the first number the second is shown
_WIDTH = 75  # characters for what a row reads and is asked
_FEW_COLUMNS = 4  # that are shown at least
_FEW_FEATURES = 3


class RowText(NamedTuple):
    """One row of a chunk in words.

    Attributes:
        number: Which row.
        sequence: Which sequence it reads; -1: it is not used.
        is_reset: Whether its state is reset before the chunk.
        steps: Where its columns stand: "steps 6 to 10".
        read: What it reads: "10 63 80".
        asked: What it is asked: "-> 63".
    """

    number: int
    sequence: int
    is_reset: bool
    steps: str
    read: str
    asked: str

    @property
    def is_used(self) -> bool:
        """Whether it reads anything."""
        return self.sequence >= 0


def rows_as_text(chunk: Chunk, missing: Tensor | None = None) -> list[RowText]:
    """The first rows of a chunk.

    A dot stands where nothing is read or asked. A row that is asked once, at the end of what it reads, has one number
    behind the arrow; any other has one for each column.

    Args:
        chunk: Symbols or readings.
        missing: bool (lanes, steps), where a symbol stands that cannot be read; it becomes a question mark.

    Returns:
        All of few rows, of many the first ones.
    """
    num_rows = len(chunk.starts)
    rows = range(num_rows if num_rows <= _ALL_ROWS else _FEW_ROWS)
    pairs = _pairs([_Row(chunk, row, missing) for row in rows])
    return [
        RowText(row, int(chunk.sequence[row]), bool(chunk.starts[row]), steps_in_words(chunk.step[row]), *pair)
        for row, pair in zip(rows, pairs, strict=True)
    ]


def more_rows_line(chunk: Chunk, shown: Sequence[object]) -> list[str]:
    """How many rows are not shown, a line; none where all are."""
    number = len(chunk.starts) - len(shown)
    return [f"  ... {number:,} more rows"] if number else []


def chunk_as_text(chunk: Chunk) -> str:
    """A chunk in a few lines: `print(chunk)`."""
    rows = rows_as_text(chunk)
    table = [
        [
            f"  row {row.number}",
            ("reset" if row.is_reset else "carried") if row.is_used else "not used",
            f"sequence {row.sequence}, {row.steps}" if row.is_used else "",
            row.read,
            row.asked,
        ]
        for row in rows
    ]
    head = f"Chunk {chunk.index}: {size_in_words(*chunk.step.shape)}"
    return "\n".join([head, *in_columns(table), *more_rows_line(chunk, rows)])


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose parts stand below each other.

    >>> in_columns([["a", "bcd", "e"], ["fg", "h", "i"]])
    ['a   bcd  e', 'fg  h    i']

    Args:
        table: Rows with as many parts each.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip() for row in table]


def steps_in_words(step: Tensor) -> str:
    """Where the columns of a row stand.

    >>> steps_in_words(torch.tensor([6, 7, 8, -1])), steps_in_words(torch.tensor([1, 7, 13]))
    ('steps 6 to 8', 'steps 1, 7, 13')

    Args:
        step: int64 (steps,), -1 where a column reads nothing.
    """
    read = step[step >= 0]
    if not len(read):
        return "no step"
    return f"step{'s' * (len(read) > 1)} {runs_in_words(read)}"


def runs_in_words(numbers: Tensor | Sequence[int], most: int = 5) -> str:
    """Whole numbers, three and more that follow one another as one: "0 to 19", "0, 6, 12", "1 to 5, 9".

    >>> runs_in_words(range(20)), runs_in_words([0, 1, 6, 7, 8])
    ('0 to 19', '0, 1, 6 to 8')

    Args:
        numbers: In their order.
        most: So many runs are told; of more the first ones and the last number.
    """
    values = torch.as_tensor(numbers)
    if not len(values):
        return "none"
    ends = (values.diff() != 1).nonzero().flatten() + 1
    begins, lasts = [0, *ends.tolist()], [*(ends - 1).tolist(), len(values) - 1]
    runs: list[str] = []
    for begin, last in list(zip(begins, lasts, strict=True))[:most]:
        low, high = int(values[begin]), int(values[last])
        runs += [f"{low} to {high}"] if last - begin > 1 else map(str, range(low, high + 1))
    return ", ".join(runs if len(begins) <= most else [*runs, "...", str(int(values[-1]))])


class _Row:
    """A row of a chunk: what stands in its columns.

    Args:
        chunk: The chunk.
        number: Which of its rows.
        missing: As of `rows_as_text`.
    """

    def __init__(self, chunk: Chunk, number: int, missing: Tensor | None) -> None:
        self.symbols, self.targets, step = chunk.symbols[number].cpu(), chunk.targets[number].cpu(), chunk.step[number]
        self.is_read = step >= 0 if self.symbols.is_floating_point() else self.symbols >= 0
        self.is_asked = _is_asked(self.targets)
        self.missing = None if missing is None else missing[number]
        used = (step >= 0).nonzero().flatten()
        self.end = int(used[-1]) + 1 if len(used) else 0
        self.num_empty = len(step) - self.end

    def is_asked_at_its_end(self) -> bool:
        """Whether it is asked once, where it ends, or not at all."""
        asked = self.is_asked.nonzero().flatten()
        return not len(asked) or (len(asked) == 1 and int(asked) == self.end - 1)

    def read(self, columns: Sequence[int | None]) -> list[str]:
        """What it reads in these columns."""
        cells = _cells(self.symbols, self.is_read, columns)
        if self.missing is None:
            return cells
        return [
            UNREADABLE if column is not None and self.missing[column] else cell
            for column, cell in zip(columns, cells, strict=True)
        ]

    def asked(self, columns: Sequence[int | None]) -> list[str]:
        """What it is asked in these columns."""
        return _cells(self.targets, self.is_asked, columns)


def _pairs(rows: Sequence[_Row]) -> list[tuple[str, str]]:
    """What each row reads and is asked, the numbers of all rows below each other."""
    is_single = all(row.is_asked_at_its_end() for row in rows)
    looked_at = [(row, _columns(row.end, 1)) for row in rows]
    widths = [
        max((len(cell) for cells in texts for cell in cells if cell != BETWEEN), default=1)
        for texts in ([row.read(some) for row, some in looked_at], [row.asked(some) for row, some in looked_at])
    ]
    return [_pair(row, *widths, is_single=is_single) for row in rows]


def _pair(row: _Row, width: int, width_asked: int, *, is_single: bool) -> tuple[str, str]:
    if not row.end:
        return "", ""
    columns = _columns(row.end, width if is_single else width + width_asked + 1)
    read = _aligned(row.read(columns), width)
    empty = f" + {row.num_empty:,} {EMPTY}" if row.num_empty else ""
    asked = row.asked([row.end - 1] if is_single else columns)
    return f"{read}{empty}", f"-> {_aligned(asked, width_asked)}"


def _aligned(cells: Sequence[str], width: int) -> str:
    return " ".join(cell if cell == BETWEEN else cell.rjust(width) for cell in cells)


def _columns(number: int, width: int) -> list[int | None]:
    """Which columns are shown, None for those between; all where they fit."""
    most = max(_FEW_COLUMNS, _WIDTH // (width + 1))
    if number <= most:
        return list(range(number))
    num_last = most // 3
    return [*range(most - num_last - 1), None, *range(number - num_last, number)]


def _cells(values: Tensor, is_there: Tensor, columns: Sequence[int | None]) -> list[str]:
    return [BETWEEN if c is None else _number(values[c]) if is_there[c] else NOTHING for c in columns]


def _number(value: Tensor) -> str:
    """A symbol, a reading, or a vector of readings."""
    if value.ndim:
        parts = [_number(one) for one in value[:_FEW_FEATURES]]
        return f"({' '.join([*parts, *([BETWEEN] if len(value) > _FEW_FEATURES else [])])})"
    return f"{value.item():.4g}" if value.is_floating_point() else str(value.item())


def _is_asked(targets: Tensor) -> Tensor:
    """Where something is asked: bool (steps,)."""
    if not targets.is_floating_point():
        return targets != NOT_ASKED
    is_number = ~targets.isnan()
    return is_number.any(dim=-1) if targets.ndim > 1 else is_number
