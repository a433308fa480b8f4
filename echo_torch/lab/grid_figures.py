"""Pictures of grids: lines for one axis, a map for two, maps side by side for three; and those of `map` and `lags`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from matplotlib.axes import Axes

from echo_torch.lab.drawing import (
    BLUE,
    FAINT,
    INK,
    KEPT,
    new_figure,
    own_settings,
    save_figure,
    set_title,
    style_of,
)
from echo_torch.lab.grids import value_in_words
from echo_torch.lab.html import visible
from echo_torch.lab.tables import FEW_SEEDS, size_axis


@own_settings()
def draw_grid(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path | IO[bytes], *, title: str
) -> None:
    """Draw the accuracy over a grid of one, two or three axes.

    Args:
        grid_axes: The axes with their values: the first upwards, the second across, a panel for each of the third.
        cells: As `sweep.cells_of` makes them.
        path: As of `draw_reach`.
        title: Stands above it.
    """
    if len(grid_axes) == 1:
        _draw_line(grid_axes, cells, path, title=title)
    else:
        draw_map(grid_axes, cells, path, title=title)


def _draw_line(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path | IO[bytes], *, title: str
) -> None:
    ((name, values),) = grid_axes.items()
    labels = [_as_label(value) for value in values]
    figure = new_figure(max(5.0, max(0.7, *(0.11 * len(label) for label in labels)) * len(values) + 2.5), 4)
    axes = figure.subplots()
    known = [(x, cell) for x, cell in enumerate(cells) if cell["accuracy"] is not None]
    for x in set(range(len(cells))) - {x for x, _ in known}:
        axes.text(x, 0.5, "?", ha="center", va="center")
    for x, cell in known:
        style: dict[str, Any] = {"markersize": 5, "color": BLUE, "alpha": 0.4, "zorder": 1}
        axes.plot([x] * len(cell["accuracies"]), cell["accuracies"], ".", label="one seed", **style)
    xs, means = [x for x, _ in known], [cell["accuracy"] for _, cell in known]
    halves = [cell["accuracy_half_interval"] if len(cell["accuracies"]) >= FEW_SEEDS else 0 for _, cell in known]
    label = "mean, 95 % over seeds" if any(halves) else "mean"
    axes.errorbar(xs, means, halves, color=BLUE, marker="o", capsize=4, label=label, zorder=3)
    for column, color, line in (("ceiling", INK, "-"), ("chance", FAINT, "--")):
        places = [(x, cell[column]) for x, cell in known if cell[column] is not None]
        for x, height in places:
            axes.plot([x - 0.4, x + 0.4], [height, height], color=color, linestyle=line, linewidth=1.2, label=column)
    axes.set(ylim=(-0.04, 1.06), xlim=(-0.6, len(values) - 0.4), xlabel=axis_label(name))
    axes.set_ylabel("accuracy on fresh symbols")
    axes.set_xticks(range(len(values)), labels)
    axes.grid(alpha=0.3)
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(found), frameon=False)
    set_title(figure, title)
    save_figure(figure, path)


def axis_label(name: str) -> str:
    """An option as the label of an axis, with its unit where it counts steps."""
    words = "chunk length" if name == "chunk" else name.replace("_", " ")
    return f"{words} (steps)" if name in ("lag", "chunk", "length", "window") else words


def _as_label(value: object) -> str:
    """The value, of a long text the end, by which paths and classes differ."""
    text = value_in_words(value)
    return visible(text if len(text) <= 20 else "…" + text[-19:])


@own_settings()
def draw_map(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path | IO[bytes], *, title: str
) -> None:
    """Draw mean accuracy as heatmaps: the first axis upwards, the second to the right, a heatmap for each of the third.

    Args:
        grid_axes: Two or three axes with their values.
        cells: With these names and `accuracy`, which is None where nothing is known.
        path: As of `draw_reach`.
        title: Stands above it.
    """
    (row, rows), (column, columns), *third = grid_axes.items()
    ((panel_name, panel_values),) = third or [("", [None])]
    by_place = {tuple(cell[name] for name in grid_axes): cell["accuracy"] for cell in cells}
    titles = [f"{panel_name.replace('_', ' ')} {_as_label(value)}" if third else "" for value in panel_values]
    of_columns = max(0.58, 0.11 * max(len(_as_label(value)) for value in columns)) * len(columns)
    width = max(of_columns + 0.5, *(0.12 * len(text) for text in (axis_label(column), *titles))) * len(panel_values)
    of_rows = 0.09 * max(len(_as_label(value)) for value in rows)
    figure = new_figure(max(5.5, width + of_rows + 1.5), max(3.2, 0.6 * len(rows) + 1.9))
    panels = figure.subplots(1, len(panel_values), sharey=True, squeeze=False)
    for panel, value, panel_title in zip(panels[0], panel_values, titles, strict=True):
        end = (value,) if third else ()
        table = [[by_place[(y, x, *end)] for x in columns] for y in rows]
        image = _draw_heatmap(panel, table)
        panel.set_title(panel_title)
        panel.set_xticks([x + 0.5 for x in range(len(columns))], [_as_label(x) for x in columns])
        panel.set_yticks([y + 0.5 for y in range(len(rows))], [_as_label(y) for y in rows])
        panel.set_xlabel(axis_label(column))
        if (row, column) == ("lag", "chunk"):
            _draw_staircase(panel, rows, columns)
    panels[0][0].set_ylabel(axis_label(row))
    colors = figure.colorbar(image, ax=list(panels[0]), pad=0.01, label="accuracy on fresh symbols (%)")
    colors.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    solids: Any = colors.solids
    solids.set(rasterized=False, edgecolor="face", gid=KEPT)  # no picture within the picture
    if lines := panels[0][0].get_lines():
        handles: list[Any] = [tuple(lines)]  # one upon the other
        figure.legend(handles, [str(lines[0].get_label())], loc="outside lower center", frameon=False)
    set_title(figure, title)
    save_figure(figure, path)


def _draw_heatmap(panel: Axes, table: Sequence[Sequence[float | None]]) -> Any:
    known = [[float("nan") if value is None else value for value in line] for line in table]
    image = panel.pcolormesh(known, vmin=0, vmax=1, cmap="cividis", gid=KEPT)
    panel.set(xlim=(0, len(table[0])), ylim=(0, len(table)))
    for y, line in enumerate(table):
        for x, accuracy in enumerate(line):
            text = "?" if accuracy is None else f"{100 * accuracy:.0f}"
            color = "white" if accuracy is not None and accuracy < 0.6 else "black"
            panel.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=color, fontsize=9, gid=KEPT)
    return image


def _draw_staircase(panel: Axes, lags: Sequence[int], chunks: Sequence[int]) -> None:
    """Between the last chunk that is too short and the first that holds the answer, where both rise."""
    if list(chunks) != sorted(chunks):
        return
    xs = [sum(chunk < lag + 1 for chunk in chunks) for lag in lags for _ in range(2)]
    ys = [edge for y in range(len(lags)) for edge in (y, y + 1)]
    for style in _STAIRS:  # at the edge of the panel it is seen whole
        panel.plot(xs, ys, label="chunk = lag + 1", gid=KEPT, clip_on=False, **style)


# Seen on every colour of the map, and by who sees few colours.
_STAIRS: tuple[dict[str, Any], ...] = (
    {"color": "black", "linewidth": 4},
    {"color": "white", "linewidth": 1.8, "linestyle": "--"},
)


@own_settings()
def draw_map_seeds(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path | IO[bytes], *, title: str
) -> None:
    """Draw the same with every seed as a point: accuracy against chunk length, a panel for each lag.

    Args:
        grid_axes: The values of `lag`, `chunk` and `learning_rate`.
        cells: With these names and `accuracies`.
        path: As of `draw_reach`.
        title: Stands above it.
    """
    lags, chunks, rates = (grid_axes[name] for name in ("lag", "chunk", "learning_rate"))
    by_place = {(cell["learning_rate"], cell["lag"], cell["chunk"]): cell["accuracies"] for cell in cells}
    num_columns = min(3, len(lags))
    num_rows = -(-len(lags) // num_columns)
    figure = new_figure(3.4 * num_columns + 1.4, 2.7 * num_rows + 0.7)
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for panel, lag in zip(panels.flat, lags, strict=False):
        for number, rate in enumerate(rates):
            shift = 0.22 * (number - (len(rates) - 1) / 2)
            for x, chunk in enumerate(chunks):
                values = by_place[rate, lag, chunk]
                style = {**style_of(number), "linestyle": "", "markersize": 4, "alpha": 0.6}
                panel.plot([x + shift] * len(values), values, label=f"{rate:g}", **style)
        border = sum(chunk < lag + 1 for chunk in chunks) - 0.5
        panel.axvline(border, color=INK, linestyle="--", linewidth=1.5, label="chunk = lag + 1")
        panel.set(ylim=(-0.04, 1.06), title=f"lag {lag}", xlim=(-0.6, len(chunks) - 0.4))
        panel.set_xticks(range(len(chunks)), [str(chunk) for chunk in chunks])
        panel.grid(alpha=0.3)
    for panel in list(panels.flat)[len(lags) :]:
        panel.set_visible(False)
    figure.supxlabel("chunk length (steps)", fontsize=10)
    figure.supylabel("accuracy on fresh symbols, a point a seed", fontsize=10)
    found = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside right center", title="learning rate")
    set_title(figure, title)
    save_figure(figure, path)


@own_settings()
def draw_lags(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path | IO[bytes], *, title: str
) -> None:
    """Draw accuracy and sequences to 99 % against the lag, every seed a point, the state carried and reset.

    Args:
        grid_axes: The values of `lag`, of `hidden_size` or `model_options`, and of `carry`.
        cells: With these names, `accuracies`, `accuracy`, `sequences_to_99` and its half interval.
        path: As of `draw_reach`.
        title: Stands above it.
    """
    is_reached = any(cell["seeds_to_99"] for cell in cells)
    figure = new_figure(10 if is_reached else 6.4, 4.2)
    left, *right = figure.subplots(1, 1 + is_reached, squeeze=False)[0]
    for style, line in _lines_of(grid_axes, cells):
        _draw_accuracies(left, line, style)
        for panel in right:
            _draw_times(panel, line, style)
    left.set(ylabel="accuracy on fresh sequences, a dot a seed", ylim=(-0.03, 1.03))
    for panel in right:
        panel.set(ylabel="sequences to 99 % (95 % over seeds)\n(no mark: not reached)", xlim=left.get_xlim())
        panel.set_ylim(bottom=0)
    lags = grid_axes["lag"]
    for panel in (left, *right):
        panel.set_xticks(lags, [str(lag) for lag in lags])
        panel.set_xlabel("lag (steps)")
        panel.grid(alpha=0.3)
    set_title(figure, title if is_reached else f"{title}; no seed reached 99 %")
    figure.legend(loc="outside right center", title=size_axis(grid_axes).replace("_", " "))
    save_figure(figure, path)


_Line = list[dict[str, Any]]  # the cells of one size and carry, over the lags, each with its `place`


def _lines_of(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], _Line]]:
    """The lines of `lags`, each with its style: a colour and a marker for a size, dots for a reset state."""
    size_name = size_axis(grid_axes)
    sizes, carries = grid_axes[size_name], grid_axes["carry"]
    for number, (size, carry) in enumerate(itertools.product(sizes, carries)):
        # Beside each other, so that equal results do not hide one another.
        shift = 0.09 * (number - (len(sizes) * len(carries) - 1) / 2)
        line = [cell for cell in cells if (cell[size_name], cell["carry"]) == (size, carry)]
        style = {**style_of(list(sizes).index(size)), "markersize": 5}
        style |= {"linestyle": "-"} if carry == "keep" else {"linestyle": ":", "mfc": "white"}
        style["label"] = f"{'-' if size is None else size}, state {'carried' if carry == 'keep' else 'reset'}"
        yield style, [{**cell, "place": cell["lag"] + shift} for cell in line]


def _draw_accuracies(panel: Axes, line: _Line, style: dict[str, Any]) -> None:
    means = [float("nan") if cell["accuracy"] is None else cell["accuracy"] for cell in line]
    panel.plot([cell["place"] for cell in line], means, **style)
    for cell in line:
        values = [value for value in cell["accuracies"] if value is not None]
        panel.plot([cell["place"]] * len(values), values, ".", color=style["color"], markersize=4, alpha=0.5)


def _draw_times(panel: Axes, line: _Line, style: dict[str, Any]) -> None:
    times = [float("nan") if cell["sequences_to_99"] is None else cell["sequences_to_99"] for cell in line]
    halves = [cell["sequences_to_99_half_interval"] or 0.0 for cell in line]
    panel.errorbar([cell["place"] for cell in line], times, halves, capsize=3, **{**style, "label": None})
    for cell, time in zip(line, times, strict=True):
        if 0 < cell["seeds_to_99"] < cell["seeds"]:
            which_seeds = f"{cell['seeds_to_99']} of {cell['seeds']} seeds "
            panel.text(cell["place"], time, which_seeds, ha="right", va="center", fontsize=8)
