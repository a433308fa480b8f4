"""The table of metrics: a row is on its way to the disk as soon as it is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

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
