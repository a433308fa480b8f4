"""What all pictures share: their colours, their sizes, and how they become files."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from echo_torch.files import whole_file
from echo_torch.lab.pictures import form_of

# The colours of Okabe and Ito that stand out on white: people who see few colours tell them apart. Where lines cross,
# markers or dashes tell them apart too.
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)
MARKERS = "osD^vP"
INK, FAINT = "0.1", "0.4"  # what is certain, such as a ceiling; what is there to compare with, such as chance
READ, MISSING = "0.92", ORANGE  # a step that is read; what goes wrong
KEPT = "kept"  # the gid of what has the same colours on dark ground: what stands on colours of its own

_TITLE_SIZE = 11  # points
_CHARACTER = 0.56  # the mean width of one, in parts of its size


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib as it is by itself: no settings of a user's or a directory's own, which may need LaTeX or a screen."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False  # a dollar sign in a name of a file is one
        matplotlib.rcParams["svg.hashsalt"] = "echo_torch"  # else the same picture has other bytes each time
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty picture, sizes in inches."""
    # Not pyplot's, which would choose a window system, and keep every figure.
    return Figure(figsize=(width, height), layout="constrained")


def set_title(figure: Figure, title: str) -> None:
    """A title above all panels, in as many lines as the width of the picture asks for."""
    room = int(figure.get_figwidth() * 72 / (_CHARACTER * _TITLE_SIZE))
    lines = textwrap.wrap(title, max(20, room)) or [""]
    figure.set_figheight(figure.get_figheight() + (len(lines) - 1) * 1.3 * _TITLE_SIZE / 72)
    figure.suptitle("\n".join(lines), fontsize=_TITLE_SIZE)


def style_of(number: int) -> dict[str, Any]:
    """Colour and marker of the n-th of several things that are told apart."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def some_columns(number: int, most: int, first: int, last: int) -> list[int | None]:
    """The columns that are drawn: all, or the first and the last ones of many, and None between them."""
    return [*range(number)] if number <= most else [*range(first), None, *range(number - last, number)]


def finish_rows(axes: Axes, num_rows: int, num_left_out: int, what: str, same: str) -> None:
    """Say below the rows of a batch how many more there are, and leave out the frame.

    Args:
        axes: Where they are drawn.
        num_rows: How many.
        num_left_out: How many are not drawn.
        what: What a row is called.
        same: What is said of those that are not drawn.
    """
    if num_left_out:
        axes.set_ylim(bottom=num_rows - 0.1)
        words = f"... and {num_left_out:,} more {what}{'s' * (num_left_out > 1)}{same}"
        axes.text(-0.45, num_rows - 0.36, words, ha="left", va="center", fontsize=9, color="0.3", style="italic")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def save_figure(figure: Figure, path: str | Path | IO[bytes]) -> None:
    """Write a picture, whole or not at all, in the form that its name ends in.

    Args:
        figure: The picture.
        path: The file; or an open one, which takes SVG.

    Raises:
        RuleError: If the name ends in another way than .png and .svg.
    """
    if not isinstance(path, (str, Path)):
        _save(figure, path, "svg")
        return
    form = form_of(path)
    with whole_file(path) as file:
        _save(figure, file, form)


def _save(figure: Figure, file: IO[bytes], form: str) -> None:
    # Tight: whatever stands out over the edge belongs to the picture. No date: the same picture has the same bytes.
    metadata = {"Date": None} if form == "svg" else None
    figure.savefig(file, format=form, dpi=120, bbox_inches="tight", metadata=metadata)
