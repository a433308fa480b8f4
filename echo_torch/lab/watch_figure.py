"""A picture of what a watch has seen: the rows and calls of somebody's own training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from echo_torch.diagnosis.watching.tracks import EMPTY, KNOWN, MADE, STRANGE, SeenCall, Track
from echo_torch.diagnosis.watching.watcher import Watch
from echo_torch.errors import RuleError
from echo_torch.lab.drawing import (
    BLUE,
    INK,
    MISSING,
    ORANGE,
    READ,
    finish_rows,
    new_figure,
    own_settings,
    save_figure,
    some_columns,
)

_MAX_ROWS, _MAX_ALIKE, _MAX_COLUMNS, _MAX_STEPS, _MAX_ROOTS, _LONG = 8, 3, 25, 8, 5, 4
_BARS: dict[str, dict[str, Any]] = {  # where a state begins
    EMPTY: {"color": INK, "linestyle": "-"},
    MADE: {"color": BLUE, "linestyle": (0, (2, 0.7))},
    STRANGE: {"color": ORANGE, "linestyle": (0, (0.7, 0.7))},
}
_Ends = dict[tuple[int, int], tuple[float, int]]  # of each row of each call: where its last box is


@own_settings()
def draw_watch(seen: Watch, path: str | Path, *, layer: str | None = None) -> None:
    """Draw what each row of a recurrent layer read in its first training calls, and where its state came from.

    A box is a step that a row reads, the number in it counted from where the row began, or as stamps say. A line leads
    from where a row's state was left to where it goes on: grey where it goes on exactly there, dashed with the gap
    where not. A bar is where a state begins. What is unknown has a question mark. Of calls with many steps the first
    and the last ones are drawn, of rows that look alike a few.

    Args:
        seen: What was watched.
        path: The .png or .svg file.
        layer: Its dotted name, as the findings have it; None: the first that was called in training.

    Raises:
        RuleError: If there is no such layer, or none was called.
    """
    name, all_calls = _layer_of(seen, layer)
    calls = _first_of(all_calls)
    number, is_alike = max(len(call.tracks) for call in calls), _look_alike(calls)
    num_rows = min(number, _MAX_ALIKE if is_alike else _MAX_ROWS)
    places, width = _places_of(calls)
    figure = new_figure(max(7.0, 0.62 * width + 1.6), 0.85 * num_rows + 2.1)
    axes = figure.subplots()
    ends: _Ends = {}
    for call, x in zip(calls, places, strict=True):
        for row, track in enumerate(call.tracks[:num_rows]):
            _draw_beginning(axes, x, row, track, ends)
            ends[call.number, row] = _draw_boxes(axes, x, row, track), row
    _label(axes, calls, places, num_rows, width)
    axes.set_xlabel(_words_of(calls, all_calls[len(calls) :]))
    look = "looks" if number - num_rows == 1 else "look"
    finish_rows(axes, num_rows, number - num_rows, "row", f", which {look} the same" * is_alike)
    axes.set_title(f"{name}: what each row reads, and where its state comes from")
    figure.legend(handles=_keys(calls), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)


def _layer_of(seen: Watch, layer: str | None) -> tuple[str, list[SeenCall]]:
    """The name of the layer, and its training calls; all calls where it was called in none."""
    names = seen.layers
    if layer is not None or not names:
        name, calls = layer or "", seen.tracks(layer)
        training = [call for call in calls if call.trains]
        return name, training or calls
    for name in names:
        if names.count(name) == 1 and (training := [call for call in seen.tracks(name) if call.trains]):
            return name, training
    rule = "$layer must name a recurrent layer"
    raise RuleError("layer", rule, repr(layer), reason="because none was called in training, or names occur twice")


def _first_of(calls: Sequence[SeenCall]) -> list[SeenCall]:
    """As many calls as there is room for, of the first few calls of the whole model."""
    kept: list[SeenCall] = []
    columns = 0
    for call in calls:
        columns += _num_columns(call)
        roots = {one.root for one in kept} | {call.root}
        if kept and (columns > _MAX_COLUMNS or len(roots) > _MAX_ROOTS):
            break
        kept.append(call)
    return kept


def _look_alike(calls: Sequence[SeenCall]) -> bool:
    """Whether all rows look the same."""
    return all(
        _looks(track, row) == _looks(call.tracks[0], 0) for call in calls for row, track in enumerate(call.tracks)
    )


def _looks(track: Track, row: int) -> tuple[object, ...]:
    """All that is drawn of a row; where its state comes from, as seen from there."""
    origin = None if track.origin is None else (track.origin[0], track.origin[1] - row)
    return track.steps, track.begins, origin, track.gaps


def _num_columns(call: SeenCall) -> int:
    return max(len(_columns_of(len(track.steps))) for track in call.tracks)


def _places_of(calls: Sequence[SeenCall]) -> tuple[list[float], float]:
    """Where each call begins, with a space between two calls of the whole model; and where the last one ends."""
    places: list[float] = []
    x = 0.0
    for number, call in enumerate(calls):
        if number and calls[number - 1].root != call.root:
            x += 1.2
        places.append(x)
        x += _num_columns(call)
    return places, x


def _draw_boxes(axes: Axes, x: float, row: int, track: Track) -> float:
    """Returns where the last box is."""
    columns = _columns_of(len(track.steps))
    for number, column in enumerate(columns):
        step = None if column is None else track.steps[column]
        if column is None or step == -1:
            axes.text(x + number, row - 0.09, "..." if column is None else "-", ha="center", va="center", color="0.6")
            continue
        axes.add_patch(Rectangle((x + number - 0.45, row - 0.3), 0.9, 0.42, facecolor=READ, edgecolor="0.3"))
        text = "?" if step is None else str(step)
        axes.text(x + number, row - 0.09, text, ha="center", va="center", fontsize=10 if len(text) < _LONG else 7)
        gap = track.gaps[column]
        if column != track.first and number and columns[number - 1] is not None and gap not in (0, None):
            _say_gap(axes, x + number - 0.5, row, gap)
    return x + len(columns) - 1


def _columns_of(num_steps: int) -> list[int | None]:
    return some_columns(num_steps, _MAX_STEPS, 2, 2)


def _draw_beginning(axes: Axes, x: float, row: int, track: Track, ends: _Ends) -> None:
    """The line to a row's first box, or the bar before it."""
    if track.begins != KNOWN:
        axes.plot([x - 0.62, x - 0.62], [row - 0.32, row + 0.14], linewidth=3, **_BARS[track.begins])
        return
    there, other = ends.get(track.origin or (-1, -1), (x - 2.2, row))
    color, style = ("0.55", "-") if track.gap in (0, None) else (MISSING, "--")
    axes.plot(
        [there + 0.45, x - 0.45], [other - 0.09, row - 0.09], color=color, linestyle=style, linewidth=1.5, zorder=0
    )
    if track.gap != 0 and track.first is not None:
        _say_gap(axes, x - 0.95, row, track.gap)


def _say_gap(axes: Axes, x: float, row: int, gap: int | str | None) -> None:
    label = "?" if gap is None else gap if isinstance(gap, str) else f"{gap:+d}"
    color = "0.4" if gap is None else MISSING
    axes.text(x, row - 0.4, label, ha="center", va="center", fontsize=8, color=color)


def _label(axes: Axes, calls: Sequence[SeenCall], places: Sequence[float], num_rows: int, width: float) -> None:
    """Name rows and calls of the whole model."""
    ranges: dict[int, list[float]] = {}
    for call, x in zip(calls, places, strict=True):
        ranges.setdefault(call.root, [x])[1:] = [x + _num_columns(call) - 1]
    axes.set_xticks([sum(ends) / 2 for ends in ranges.values()], [f"call {number}" for number in range(len(ranges))])
    axes.set_yticks(range(num_rows), [f"row {row}" for row in range(num_rows)])
    axes.set(xlim=(-1.4, width - 0.2), ylim=(num_rows - 0.5, -0.75))
    axes.set_ylabel("row of the batch")


def _words_of(drawn: Sequence[SeenCall], others: Sequence[SeenCall]) -> str:
    """What the calls are that are drawn, and what the others would show."""
    words = "call of the whole model" + " in training" * drawn[0].trains
    if not others:
        return words
    number = len(drawn) + len(others)
    words += f"\ndrawn: the first {len(drawn):,} of {number:,} calls of the layer"
    elsewhere = sum(any(_goes_elsewhere(track) for track in call.tracks) for call in others)
    if elsewhere:
        words += f"; in {elsewhere:,} of the others rows go on elsewhere"
    return words


def _goes_elsewhere(track: Track) -> bool:
    return any(gap not in (0, None) for gap in track.gaps)


def _keys(calls: Sequence[SeenCall]) -> list[Artist]:
    """The key to what is drawn, and to nothing else."""
    tracks = [track for call in calls for track in call.tracks[:_MAX_ROWS]]
    begins, gaps = (
        {track.begins for track in tracks},
        {track.gap for track in tracks if track.begins == KNOWN and track.first is not None},
    )
    keys: list[Artist] = [Patch(facecolor=READ, edgecolor="0.3", label="step read (?: unknown which)")]
    if 0 in gaps:
        keys.append(Line2D([], [], color="0.55", label="goes on where its state stopped"))
    if None in gaps:
        keys.append(Line2D([], [], color="0.55", marker="$?$", label="goes on, unknown how far from there"))
    if gaps - {0, None}:
        label = "goes on elsewhere: steps on or back, or another sequence"
        keys.append(Line2D([], [], color=MISSING, linestyle="--", label=label))
    words = {
        EMPTY: "begins without a state",
        MADE: "begins with a state of the model's own",
        STRANGE: "a state of no call",
    }
    for kind, label in words.items():
        if kind in begins:
            keys.append(Line2D([], [], linewidth=3, label=label, **_BARS[kind]))
    return keys
