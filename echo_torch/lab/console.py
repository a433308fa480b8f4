"""What a terminal sees of a training."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from echo_torch.diagnosis.auditing.gaps import StateWarning
from echo_torch.training.checkpoints import CheckpointWarning


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings of the audit and the checkpoints as lines above the progress bar, without a place in the source."""
    from tqdm import tqdm

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(message: Any, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, (StateWarning, CheckpointWarning)):
                tqdm.write(f"warning: {message}", file=sys.stderr)
            else:
                show(message, category, *rest)

        for category in (StateWarning, CheckpointWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show_line  # type: ignore[assignment]  # `rest` is all that it need not know
        yield


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's remarks about this machine and its tips out of the output; errors still come through.

    Of several threads the first one begins it and the last one ends it, because what is set holds for all.
    """
    with _LOCK:
        if not _QUIET:
            _ENDS.enter_context(_quiet())
        _QUIET.append(threading.get_ident())
    try:
        yield
    finally:
        with _LOCK:
            _QUIET.remove(threading.get_ident())
            if not _QUIET:
                _ENDS.close()


_LOCK, _ENDS = threading.Lock(), contextlib.ExitStack()
_QUIET: list[int] = []  # the threads that are in it


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # one process makes the data in 1 % of an update
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 calls torch by an old name
    ".*have no `val_dataloader`.*",  # a validation is a choice
    ".*GPU available but not used.*",  # --accelerator cpu is a choice
)
