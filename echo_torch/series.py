"""A user's own numbers, read from a file row by row: text or CSV, one or several independent series."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from echo_torch.files import UserError

MAX_SYMBOL = 2**31 - 1


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
        path: Text with integers separated by blanks or line ends, where a blank line begins a new series; or, with
            `column`, CSV with a line of names.
        column: The CSV column that holds the numbers.
        series: The CSV column that names the series of a row; where its value changes, a new series begins.

    Yields:
        The numbers.

    Raises:
        UserError: If the file cannot be read, has no such column, or holds something else than integers >= 0.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = _of_text(file) if column is None else _of_table(csv.reader(file), str(path), column, series)
            previous, is_first = None, True
            for line, text, group in rows:
                if not text:
                    is_first = is_first or column is None
                    if column is not None:
                        raise UserError(f"{str(path)!r} line {line}: {column} is empty; every row needs a number.")
                    continue
                yield Row(line, _symbol(text, str(path), line, column), is_first or group != previous)
                previous, is_first = group, False
    except OSError as error:
        raise UserError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{str(path)!r} is no text in UTF-8; save the numbers as text or CSV.") from None
    except csv.Error as error:
        raise UserError(f"{str(path)!r} is no valid CSV ({error}).") from None


def _of_text(lines: Iterator[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            yield number, "", ""
        for word in words:
            yield number, word, ""


def _of_table(rows: Iterator[list[str]], path: str, column: str, series: str | None) -> Iterator[tuple[int, str, str]]:
    names = [name.strip() for name in next(rows, [])]
    for name in (column, *([] if series is None else [series])):
        if name not in names:
            raise UserError(f"{path!r} has no column {name!r}; its first line names {', '.join(names) or 'none'}.")
    place, group = names.index(column), None if series is None else names.index(series)
    for number, row in zip(itertools.count(2), rows, strict=False):
        if row:
            text = row[place].strip() if place < len(row) else ""
            yield number, text, "" if group is None or group >= len(row) else row[group]


def _symbol(text: str, path: str, line: int, column: str | None) -> int:
    # Not int(): it also takes underscores and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= 10 and (symbol := int(text)) <= MAX_SYMBOL:
        return symbol
    shown = text if len(text) <= 30 else text[:30] + "..."
    hint = "" if column or line > 1 else "; for CSV, name the column with --column"
    raise UserError(
        f"{path!r} line {line}: every entry must be a whole number between 0 and {MAX_SYMBOL}. Got {shown!r}{hint}."
    )
