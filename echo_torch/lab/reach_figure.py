"""A picture of what a data path allows: which step each row reads, what it is asked, and where its state comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath

from echo_torch.data.chunk import Chunk
from echo_torch.lab.drawing import (
    BLUE,
    GREEN,
    INK,
    MISSING,
    PURPLE,
    READ,
    finish_rows,
    new_figure,
    own_settings,
    save_figure,
    some_columns,
)
from echo_torch.lab.reach_boxes import Box, boxes_of, look_alike

_MAX_LANES, _MAX_ALIKE, _MAX_CHUNKS = 8, 3, 5
_MORE, _LAST = 5, 5  # columns that a single chunk may have beyond the room for several; of a longer one the last ones
_SPACE = 1.2  # between chunks, in columns
_LOST: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.6", "linestyle": ":"}  # a step without its symbol
_CUT: dict[str, Any] = {"color": BLUE, "linestyle": (0, (1, 0.7)), "linewidth": 2.5}
_Lanes = list[list[list[Box]]]  # of each lane the boxes of each chunk


class _Places(NamedTuple):
    """Where things stand in the picture, in columns from the left.

    Attributes:
        columns: For each chunk which columns are drawn; None: some are left out.
        begins: Where each chunk begins.
    """

    columns: list[list[int | None]]
    begins: list[float]

    @property
    def width(self) -> float:
        """Where the last chunk ends."""
        return self.begins[-1] + len(self.columns[-1])

    def of(self, chunk: int, column: int | None) -> float | None:
        """Where a column stands, and where dots stand for the columns that are left out; None: it is one of these."""
        drawn = self.columns[chunk]
        return self.begins[chunk] + drawn.index(column) if column in drawn else None


@own_settings()
def draw_reach(
    chunks: Sequence[Chunk], lag: int, path: str | Path | IO[bytes], *, title: str = "", max_columns: int = 20
) -> None:
    """Draw what each row of the batch reads, where it jumps, and whether it has read what it is asked for.

    A box is a column of a chunk, the number in it the step that is read. Under it stands which step's symbol is
    asked, with a tick where this row has read it since its reset and a cross where it has not; for one cross an
    arrow shows which row did read it. From box to box the state goes on (grey), jumps (dashed) or is reset (a bar);
    a dotted bar is where the gradient is cut. Of rows that look alike a few are drawn.

    Args:
        chunks: The first chunks of a stream; as many are drawn as there is room for.
        lag: How many steps back the answers lie.
        path: The .png or .svg file; or an open one, which takes SVG.
        title: Stands above it.
        max_columns: Room for so many columns of all chunks.
    """
    places = _places_of(chunks, max_columns)
    chunks = chunks[: len(places.columns)]
    lanes = boxes_of(chunks, lag)
    is_alike = look_alike(lanes)
    shown = lanes[: _MAX_ALIKE if is_alike else _MAX_LANES]
    figure = new_figure(max(7.0, 0.62 * places.width + 1.6), 0.85 * len(shown) + 2.1)
    axes = figure.subplots()
    for lane, of_chunks in enumerate(shown):
        for number, boxes in enumerate(of_chunks):
            _draw_boxes(axes, lane, boxes, places, number)
    example = _draw_example(axes, shown, places)
    _label(axes, chunks, places, len(shown))
    same = ", which read the same steps, each of its own sequence" * is_alike
    finish_rows(axes, len(shown), len(lanes) - len(shown), "lane", same)
    axes.set_title(title)
    keys = [*_keys([box for lane in shown for boxes in lane for box in boxes]), *example]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    save_figure(figure, path)


def _places_of(chunks: Sequence[Chunk], max_columns: int) -> _Places:
    """As many chunks as there is room for, each as wide as its longest row: a short one leaves no empty space."""
    columns: list[list[int | None]] = []
    begins: list[float] = []
    x = 0.0
    for chunk in chunks[:_MAX_CHUNKS]:
        number = max([1, *((chunk.step >= 0).any(dim=0).nonzero().flatten() + 1).tolist()])
        most = max_columns + _MORE
        used = some_columns(number, most, most - _LAST - 1, _LAST)
        if columns and sum(map(len, columns)) + len(used) > max_columns:
            break
        columns.append(used)
        begins.append(x)
        x += len(used) + _SPACE
    return _Places(columns, begins)


def _draw_boxes(axes: Axes, lane: int, boxes: Sequence[Box], places: _Places, number: int) -> None:
    """One row of one chunk."""
    dots = places.of(number, None)
    for box in boxes:
        if (x := places.of(number, box.column)) is not None:
            _draw_hand_over(axes, x, lane, box, is_after_dots=dots is not None and x == dots + 1)
            _draw_cell(axes, x, lane, box.place[1], box.is_read)
            if box.answer is not None:
                _draw_question(axes, x, lane, box.answer, box.has_read)
    if dots is not None and boxes and boxes[-1].column >= dots - places.begins[number]:
        axes.text(dots, lane - 0.09, "...", ha="center", va="center", color="0.4")


def _draw_cell(axes: Axes, x: float, lane: int, step: int, is_read: bool) -> None:
    style = {"facecolor": READ, "edgecolor": "0.3"} if is_read else _LOST
    axes.add_patch(Rectangle((x - 0.45, lane - 0.3), 0.9, 0.42, **style))
    color = "black" if is_read else "0.6"
    axes.text(x, lane - 0.09, str(step), ha="center", va="center", fontsize=10, color=color)


def _draw_question(axes: Axes, x: float, lane: int, asked: int, has_read: bool) -> None:
    mark, color = ("\u2713", GREEN) if has_read else ("\u2717", MISSING)
    axes.text(x, lane + 0.29, f"{asked}? {mark}", ha="center", va="center", fontsize=8.5, color=color, weight="bold")


def _draw_hand_over(axes: Axes, x: float, lane: int, box: Box, *, is_after_dots: bool) -> None:
    """How the state gets to a box, unless the boxes before it are left out."""
    y, bar = lane - 0.09, ([x - 0.62, x - 0.62], [lane - 0.32, lane + 0.14])
    if box.gap is None:
        axes.plot(*bar, color=INK, linewidth=3)
        return
    if is_after_dots:
        return
    if box.is_border:
        axes.plot(*bar, **_CUT)
    begin = x - (0.55 + _SPACE if box.is_border else 0.55)
    style: dict[str, Any] = {"color": "0.55"} if box.gap == 0 else {"color": MISSING, "linestyle": "--"}
    axes.plot([begin, x - 0.45], [y, y], linewidth=1.5, zorder=0, **style)
    if box.gap != 0:
        label = box.gap if isinstance(box.gap, str) else f"{box.gap:+d}"
        axes.text((begin + x - 0.45) / 2, lane - 0.4, label, ha="center", va="center", fontsize=8, color=MISSING)


def _draw_example(axes: Axes, lanes: _Lanes, places: _Places) -> list[Line2D]:
    """Show for one unanswerable question which row did read the answer; returns the key to the arrow, if any."""
    found = _example(lanes, places)
    if found is None:
        return []
    (there, other), (x, lane), corridor, answer = found
    axes.add_patch(Rectangle((there - 0.45, other - 0.3), 0.9, 0.42, fill=False, edgecolor=PURPLE, linewidth=2.5))
    # Between the rows, and up or down in the space before the chunk: no label stands there.
    way = [(there, other - 0.3), (there, other - 0.54), (corridor, other - 0.54), (corridor, lane + 0.46)]
    axes.plot(*zip(*way, (x, lane + 0.46), strict=True), color=PURPLE, linewidth=1.8, zorder=5)
    arrow = {"arrowstyle": "->", "color": PURPLE, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(x, lane + 0.37), xytext=(x, lane + 0.47), arrowprops=arrow, zorder=5)
    label = f"example: lane {lane} is asked for step {answer}, which lane {other} has read"
    return [Line2D([], [], color=PURPLE, label=label)]


def _example(lanes: _Lanes, places: _Places) -> tuple[tuple[float, int], tuple[float, int], float, int | None] | None:
    """(where a step was read, where it is asked in another row, where between chunks one gets there, the step)."""
    drawn: dict[tuple[int, int], tuple[float, int]] = {}
    for number, begin in enumerate(places.begins):
        for lane, of_chunks in enumerate(lanes):
            for box in of_chunks[number]:
                x = places.of(number, box.column)
                if x is None or box.answer is None or box.has_read:
                    continue
                there, other = drawn.get((box.place[0], box.answer), (x, lane))
                if there < begin and other != lane:
                    return (there, other), (x, lane), begin - 0.4 - _SPACE, box.answer
        for lane, of_chunks in enumerate(lanes):
            for box in of_chunks[number]:
                if box.is_read and (x := places.of(number, box.column)) is not None:
                    drawn.setdefault(box.place, (x, lane))
    return None


def _label(axes: Axes, chunks: Sequence[Chunk], places: _Places, num_lanes: int) -> None:
    """Name chunks and rows."""
    ends = zip(places.begins, places.columns, strict=True)
    axes.set_xticks([begin + (len(columns) - 1) / 2 for begin, columns in ends], [f"chunk {c.index}" for c in chunks])
    axes.set_yticks(range(num_lanes), [f"lane {lane}" for lane in range(num_lanes)])
    axes.set(xlim=(-1.4, places.width - 0.2), ylim=(num_lanes - 0.3, -0.75))
    axes.set(xlabel="chunk, in order of training", ylabel="row of the batch")


def _keys(boxes: Sequence[Box]) -> list[Artist]:
    """The key to what is drawn, and to nothing else."""
    answers = {box.has_read for box in boxes if box.answer is not None}
    gaps = {box.gap for box in boxes}
    keys: list[tuple[bool, Artist]] = [
        (True, Patch(facecolor=READ, edgecolor="0.3", label="step read")),
        (not all(box.is_read for box in boxes), Patch(label="step passed, its symbol missing", **_LOST)),
        (True in answers, _mark(GREEN, _tick(), "asked, and read by this row before")),
        (False in answers, _mark(MISSING, "x", "asked, but never read by this row")),
        (0 in gaps, Line2D([], [], color="0.55", label="state goes on without a gap")),
        (
            bool(gaps - {0, None}),
            Line2D([], [], color=MISSING, linestyle="--", label="state jumps (+: steps skipped, -: read again)"),
        ),
        (None in gaps, Line2D([], [], color=INK, linewidth=3, label="state reset")),
        (
            any(box.is_border and box.gap is not None for box in boxes),
            Line2D([], [], label="gradient cut: the state goes on, no gradient goes back", **_CUT),
        ),
    ]
    return [key for is_drawn, key in keys if is_drawn]


def _mark(color: str, marker: str | TextPath, label: str) -> Line2D:
    return Line2D([], [], color=color, marker=marker, linestyle="", label=label)


def _tick() -> TextPath:
    """As below a box. A dollar sign begins no formula in these pictures, so the mark cannot be written as one."""
    return TextPath((-4, -4), "✓", size=10)
