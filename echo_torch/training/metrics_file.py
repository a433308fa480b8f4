"""The file of metrics: a row is on disk as soon as it is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from echo_torch.files import Place, append_text, cannot_write, to_disk

METRICS_COLUMNS = ("update", "sequences", "symbols", "targets", "loss", "accuracy")


class MetricsTable:
    """A CSV file of rows, each on its way to the disk as soon as it is known; any training loop can write it.

    Args:
        path: The file; it is made with the first row.
        drawn: num_chunks -> (sequences, symbols), how much fresh data so many chunks draw from.
        place: Its directory, or one above; None: whatever has the name.
    """

    def __init__(self, path: str | Path, drawn: Callable[[int], tuple[int, int]], place: Place | None = None) -> None:
        self.path = Path(path)
        self._drawn = drawn
        self._place = place
        self._is_on_disk = True

    def append(self, update: int, values: Mapping[str, float]) -> None:
        """Add one row.

        Args:
            update: Updates made so far.
            values: Some of the columns `targets`, `loss` and `accuracy`; a missing one stays empty.

        Raises:
            WriteError: If it cannot be written, or its directory is another one now.
        """
        if self._place is not None:
            self._place.check()
        sequences, symbols = self._drawn(update)
        row = {"update": update, "sequences": sequences, "symbols": symbols, **values}
        row["targets"] = int(row.get("targets", 0))
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n")
        if not self.path.exists():
            writer.writeheader()
        writer.writerow(row)
        append_text(self.path, text.getvalue())
        self._is_on_disk = False

    def to_disk(self) -> None:
        """Wait until all rows would outlive a power cut; a checkpoint that counts them comes after.

        Raises:
            WriteError: If the disk fails.
        """
        if self._is_on_disk:
            return
        try:
            to_disk(self.path)
            to_disk(self.path.parent)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._is_on_disk = True


class MetricsFile(Logger):
    """A Lightning logger that writes each row to a `MetricsTable` at once.

    Lightning's own CSVLogger holds 100 rows back and deletes an older file.

    Args:
        path: As of `MetricsTable`.
        drawn: As of `MetricsTable`.
        prefix: Of the metrics that are meant for this file, "validation_"; the columns are named without it.
        place: As of `MetricsTable`.
    """

    def __init__(
        self,
        path: str | Path,
        drawn: Callable[[int], tuple[int, int]],
        prefix: str = "",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        self._table = MetricsTable(path, drawn, place)
        self._prefix = prefix

    @property
    def name(self) -> str:
        """The file's name."""
        return self._table.path.name

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    def to_disk(self) -> None:
        """As of `MetricsTable`."""
        self._table.to_disk()

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
