"""What all pictures share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from echo_torch.files import whole_file

READ, MISSING = "0.92", "#b2182b"  # a step that is read; what goes wrong


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib as it is by itself: no settings of a user's or a directory's own, which may need LaTeX or a screen."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty picture, sizes in inches."""
    # Not pyplot's, which would choose a window system, and keep every figure.
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture as a PNG file, whole or not at all."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
