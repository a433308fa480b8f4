"""A user's own numbers, read from a file row by row: text or CSV, one or several independent series."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from echo_torch.errors import UserError, shorten
from echo_torch.files import open_regular

MAX_SYMBOL = 2**31 - 1
MAX_LINE = 2**20  # characters of a line of numbers, which is read whole
_SHOWN_NAMES = 20


class Row(NamedTuple):
    """One number of a file.

    Attributes:
        line: Where it stands, counted from 1.
        symbol: The number.
        is_new: Whether an independent series begins with it.
    """

    line: int
    symbol: int
    is_new: bool


def read_rows(path: str | Path, *, column: str | None = None, series: str | None = None) -> Iterator[Row]:
    """Read a file's numbers in order; memory does not grow with the file.

    Args:
        path: Text with integers separated by blanks or line ends; or, with `column`, CSV with a line of names. In
            both an empty line begins a new series.
        column: The CSV column that holds the numbers.
        series: The CSV column that names the series of a row; where its value changes, a new series begins.

    Yields:
        The numbers.

    Raises:
        UserError: If the file cannot be read, has no such column, or holds something else than integers >= 0.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            rows = _of_text(file, str(path)) if column is None else _of_table(file, str(path), column, series)
            previous: str | None = None  # None: an empty line, or nothing yet
            for line, text, group in rows:
                if text is not None:
                    yield Row(line, _symbol(text, str(path), line, column), group != previous)
                previous = group
    except OSError as error:
        raise UserError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{str(path)!r} is no text in UTF-8; save the numbers as text or CSV.") from None
    except csv.Error as error:
        raise UserError(f"{str(path)!r} is no valid CSV ({error}).") from None


# A line's number, its text and the name of its series; both None for an empty line.
_Entry: TypeAlias = "tuple[int, str | None, str | None]"


def _of_text(file: TextIO, path: str) -> Iterator[_Entry]:
    for number, line in enumerate(_lines(file), start=1):
        if len(line) > MAX_LINE:
            raise _too_long(path, number)
        words = line.split()
        if not words:
            yield number, None, None
        for word in words:
            yield number, word, ""


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, of one that is too long only as much as shows it."""
    return iter(functools.partial(file.readline, MAX_LINE + 1), "")


def _too_long(path: str, line: int) -> UserError:
    return UserError(
        f"{path!r} line {line}: a line must have at most {MAX_LINE:,} characters, because it is held in memory. Got a "
        "longer one; write the numbers on more lines."
    )


class _RowLines:
    """The lines of a table, of which a row may take several, but together no more than `MAX_LINE` characters."""

    def __init__(self, file: TextIO, path: str) -> None:
        self._file, self._path = file, path
        self.row_length = 0  # so far; whoever reads sets it back where a row ends

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(_lines(self._file), start=1):
            self.row_length += len(line)
            if self.row_length > MAX_LINE:
                raise _too_long(self._path, number)
            yield line


def _of_table(file: TextIO, path: str, column: str, series: str | None) -> Iterator[_Entry]:
    lines = _RowLines(file, path)
    rows = csv.reader(lines)
    names = [name.strip() for name in next(rows, [])]
    for name in (column, *([] if series is None else [series])):
        if name not in names:
            named = ", ".join(map(shorten, names[:_SHOWN_NAMES])) or "none"
            more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
            raise UserError(f"{path!r} has no column {name!r}; its first line names {named}{more}.")
    place, group = names.index(column), None if series is None else names.index(series)
    lines.row_length = 0
    for row in rows:
        lines.row_length = 0
        if not row:
            yield rows.line_num, None, None
            continue
        text = row[place].strip() if place < len(row) else ""
        if not text:
            raise UserError(f"{path!r} line {rows.line_num}: {column} is empty; every row needs a number.")
        yield rows.line_num, text, "" if group is None or group >= len(row) else row[group]


def _symbol(text: str, path: str, line: int, column: str | None) -> int:
    # Not int(): it also takes underscores and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= 10 and (symbol := int(text)) <= MAX_SYMBOL:
        return symbol
    shown = text if len(text) <= 30 else text[:30] + "..."
    way_out = "" if column or line > 1 else "For CSV, name its column with $column."
    raise UserError(
        f"{path!r} line {line}: every entry must be a whole number between 0 and {MAX_SYMBOL}. Got {shown!r}.", way_out
    )


HELD_OUT = 10  # one number in so many, the last ones of the file, is for evaluation
_BUFFERED_NUMBERS = 2**16


class OwnNumbers(NamedTuple):
    """All numbers of a file, on disk in four bytes each.

    Attributes:
        numbers: int32 (n,), mapped from a temporary file, so that they need not fit into memory.
        begins: int64 (series,), where each independent series begins.
        largest: The largest number.
    """

    numbers: NDArray[np.int32]
    begins: NDArray[np.int64]
    largest: int

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all numbers and of where the series begin."""
        digest = hashlib.sha256(self.numbers.data)
        digest.update(self.begins.data)
        return digest.hexdigest()


def open_numbers(path: str | Path, *, column: str | None = None, series: str | None = None) -> OwnNumbers:
    """Read a file once and keep its numbers where any of them is had at once.

    Args:
        path: As of `read_rows`.
        column: As of `read_rows`.
        series: As of `read_rows`.

    Raises:
        UserError: As `read_rows`, or if there is no number.
    """
    path = str(path)
    begins = array("q")
    # Without a name, so that nothing is left behind whatever happens. Without a buffer, whose rest would be written,
    # and fail, once more when it is closed.
    with _in_temporary_folder(path):
        made = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (the next line closes it)
    with made as file:
        rows = read_rows(path, column=column, series=series)
        # Drawn on terminals only, and only where it takes long.
        shown = tqdm(rows, f"reading {path}", unit=" numbers", delay=2, disable=None, leave=False, dynamic_ncols=True)
        count, largest = _write_numbers(file, begins, shown, path)
        if not count:
            raise UserError(f"{path!r} holds no number.")
        with _in_temporary_folder(path):
            numbers = np.memmap(file, dtype=np.int32, mode="r", shape=(count,))
    return OwnNumbers(numbers, np.frombuffer(begins, dtype=np.int64), largest)


@contextlib.contextmanager
def _in_temporary_folder(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = "" if tempfile.tempdir is None else f" {tempfile.tempdir!r}"  # None: it has not found any
        raise UserError(
            f"The numbers of {path!r} cannot be kept in the temporary folder{folder}: {error.strerror or error}. Let "
            "TMPDIR name a folder with room for them, four bytes each."
        ) from None


def _write_numbers(file: IO[bytes], begins: array[int], rows: Iterable[Row], path: str) -> tuple[int, int]:
    buffer, count, largest = array("i"), 0, 0
    for row in rows:
        if row.is_new:
            begins.append(count)
        buffer.append(row.symbol)
        count, largest = count + 1, max(largest, row.symbol)
        if len(buffer) == _BUFFERED_NUMBERS:
            _write(file, buffer, path)
            del buffer[:]
    _write(file, buffer, path)
    return count, largest


def _write(file: IO[bytes], numbers: array[int], path: str) -> None:
    data = numbers.tobytes()
    with _in_temporary_folder(path):
        while data:  # a disk that is almost full takes a part first
            data = data[file.write(data) :]


def line_above(path: str | Path, largest: int, *, column: str | None = None) -> int | None:
    """The first line whose number is larger; None if there is none."""
    return next((row.line for row in read_rows(path, column=column) if row.symbol > largest), None)


@dataclass(frozen=True)
class OwnSymbols:
    """The source a stream reads from: places in, a user's own numbers out.

    Every series is cut into pieces, one after another; sequence k is piece k. The last numbers of the file are held
    out for the evaluation.

    Attributes:
        data: The numbers.
        split: "training" or "evaluation". Training begins again after the last piece, the evaluation does not.
        piece_length: Steps in a piece; the last one of a series may have fewer.
    """

    data: OwnNumbers
    split: str
    piece_length: int

    @functools.cached_property
    def _series(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Begin and end of each series in this split, and the number of its first piece; one entry more at the end."""
        count = len(self.data.numbers)
        edges = np.clip(np.append(self.data.begins, count), *split_bounds(count, self.split))
        begin, end = edges[:-1], edges[1:]
        first = np.concatenate([[0], np.cumsum(-(-(end - begin) // self.piece_length))])
        return begin, end, first

    @property
    def num_pieces(self) -> int:
        """How many pieces there are."""
        return int(self._series[2][-1])

    @property
    def longest(self) -> int:
        """Steps of the longest piece."""
        begin, end, _ = self._series
        return min(self.piece_length, int((end - begin).max()))

    def bounds(self, piece: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """From which to below which number of the file the pieces go, each 0 <= piece < num_pieces."""
        begin, end, first = self._series
        series = np.searchsorted(first, piece, side="right") - 1
        low = begin[series] + (piece - first[series]) * self.piece_length
        return low, np.minimum(low + self.piece_length, end[series])

    def __call__(self, sequence: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Symbols of the given places; -1 where there is none.

        Args:
            sequence: int64, broadcasts with `step`.
            step: int64; a negative step is no place.
        """
        low, high = self.bounds(np.mod(sequence, self.num_pieces))
        place = low + step
        exists = (step >= 0) & (place < high)
        if self.split == "evaluation":
            exists &= sequence < self.num_pieces
        found = self.data.numbers[np.where(exists, place, 0)].astype(np.int64)
        return np.where(exists, found, -1)


def split_bounds(count: int, split: str) -> tuple[int, int]:
    """From which to below which number of a file a split goes."""
    middle = count - count // HELD_OUT
    return (0, middle) if split == "training" else (middle, count)
