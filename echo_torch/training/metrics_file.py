"""The file of metrics: a row is on disk as soon as it is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from echo_torch.files import append_text

METRICS_COLUMNS = ("update", "sequences", "symbols", "targets", "loss", "accuracy")


class MetricsTable:
    """A CSV file of rows, each on its way to the disk as soon as it is known; any training loop can write it.

    Args:
        path: The file; it is made with the first row.
        drawn: num_chunks -> (sequences, symbols), how much fresh data so many chunks draw from.
    """

    def __init__(self, path: str | Path, drawn: Callable[[int], tuple[int, int]]) -> None:
        self.path = Path(path)
        self._drawn = drawn

    def append(self, update: int, values: Mapping[str, float]) -> None:
        """Add one row.

        Args:
            update: Updates made so far.
            values: Some of the columns `targets`, `loss` and `accuracy`; a missing one stays empty.

        Raises:
            WriteError: If it cannot be written.
        """
        sequences, symbols = self._drawn(update)
        row = {"update": update, "sequences": sequences, "symbols": symbols, **values}
        row["targets"] = int(row.get("targets", 0))
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n")
        if not self.path.exists():
            writer.writeheader()
        writer.writerow(row)
        append_text(self.path, text.getvalue())


class MetricsFile(Logger):
    """A Lightning logger that writes each row to a `MetricsTable` at once.

    Lightning's own CSVLogger holds 100 rows back and deletes an older file.

    Args:
        path: As of `MetricsTable`.
        drawn: As of `MetricsTable`.
        prefix: Of the metrics that are meant for this file, "validation_"; the columns are named without it.
    """

    def __init__(self, path: str | Path, drawn: Callable[[int], tuple[int, int]], prefix: str = "") -> None:
        super().__init__()
        self._table = MetricsTable(path, drawn)
        self._prefix = prefix

    @property
    def name(self) -> str:
        """The file's name."""
        return self._table.path.name

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row.

        Args:
            metrics: Some of the columns; a missing one stays empty.
            step: Updates made so far.
        """
        columns = {f"{self._prefix}{name}": name for name in METRICS_COLUMNS}
        values = {columns[name]: value for name, value in metrics.items() if name in columns}
        if step is not None and values:
            self._table.append(step, values)
