"""The table of metrics, as Lightning hands rows to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from echo_torch.files import Place
from echo_torch.training.metrics_table import METRICS_COLUMNS, MetricsTable


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
