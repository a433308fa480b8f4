"""Pictures of grids: lines for one axis, a map for two, maps side by side for three; and those of `map` and `lags`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from echo_torch.lab.drawing import new_figure, own_settings, save_figure
from echo_torch.lab.tables import FEW_SEEDS, size_axis


@own_settings()
def draw_grid(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path, *, title: str
) -> None:
    """Draw the accuracy over a grid of one, two or three axes.

    Args:
        grid_axes: The axes with their values: the first upwards, the second across, a panel for each of the third.
        cells: As `sweep.cells_of` makes them.
        path: The PNG file.
        title: Stands above it.
    """
    if len(grid_axes) == 1:
        _draw_line(grid_axes, cells, path, title=title)
    else:
        draw_map(grid_axes, cells, path, title=title)


def _draw_line(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path, *, title: str
) -> None:
    ((name, values),) = grid_axes.items()
    labels = [_as_label(value) for value in values]
    figure = new_figure(max(5.0, max(0.7, *(0.11 * len(label) for label in labels)) * len(values) + 2.5), 4)
    axes = figure.subplots()
    known = [(x, cell) for x, cell in enumerate(cells) if cell["accuracy"] is not None]
    for x in set(range(len(cells))) - {x for x, _ in known}:
        axes.text(x, 0.5, "?", ha="center", va="center")
    for x, cell in known:
        style: dict[str, Any] = {"markersize": 5, "color": "C0", "alpha": 0.4, "zorder": 1}
        axes.plot([x] * len(cell["accuracies"]), cell["accuracies"], ".", label="one seed", **style)
    xs, means = [x for x, _ in known], [cell["accuracy"] for _, cell in known]
    halves = [cell["accuracy_half_interval"] if len(cell["accuracies"]) >= FEW_SEEDS else 0 for _, cell in known]
    label = "mean, 95 % over seeds" if any(halves) else "mean"
    axes.errorbar(xs, means, halves, color="C0", marker="o", capsize=4, label=label, zorder=3)
    for column, color, line in (("ceiling", "0.1", "-"), ("chance", "0.4", "--")):
        places = [(x, cell[column]) for x, cell in known if cell[column] is not None]
        for x, height in places:
            axes.plot([x - 0.4, x + 0.4], [height, height], color=color, linestyle=line, linewidth=1.2, label=column)
    axes.set(ylim=(-0.04, 1.06), xlim=(-0.6, len(values) - 0.4), xlabel=axis_label(name))
    axes.set_ylabel("accuracy on fresh symbols")
    axes.set_xticks(range(len(values)), labels)
    axes.grid(alpha=0.3)
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(found), frameon=False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def axis_label(name: str) -> str:
    """An option as the label of an axis, with its unit where it counts steps."""
    words = "chunk length" if name == "chunk" else name.replace("_", " ")
    return f"{words} (steps)" if name in ("lag", "chunk", "length", "window") else words


def _as_label(value: object) -> str:
    """The value, of a long text the end, by which paths and classes differ; of no value what a flag's absence is."""
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 20 else "…" + text[-19:]


@own_settings()
def draw_map(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path, *, title: str
) -> None:
    """Draw mean accuracy as heatmaps: the first axis upwards, the second to the right, a heatmap for each of the third.

    Args:
        grid_axes: Two or three axes with their values.
        cells: With these names and `accuracy`, which is None where nothing is known.
        path: The PNG file.
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
        panel.set_xticks(range(len(columns)), [_as_label(x) for x in columns])
        panel.set_yticks(range(len(rows)), [_as_label(y) for y in rows])
        panel.set_xlabel(axis_label(column))
        if (row, column) == ("lag", "chunk"):
            _draw_staircase(panel, rows, columns)
    panels[0][0].set_ylabel(axis_label(row))
    colors = figure.colorbar(image, ax=list(panels[0]), pad=0.01, label="accuracy on fresh symbols (%)")
    colors.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    if lines := panels[0][0].get_lines():
        figure.legend(handles=lines[:1], loc="outside lower center", frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_heatmap(panel: Axes, table: Sequence[Sequence[float | None]]) -> Any:
    known = [[float("nan") if value is None else value for value in line] for line in table]
    image = panel.imshow(known, vmin=0, vmax=1, cmap="cividis", aspect="auto", origin="lower")
    for y, line in enumerate(table):
        for x, accuracy in enumerate(line):
            text = "?" if accuracy is None else f"{100 * accuracy:.0f}"
            color = "white" if accuracy is not None and accuracy < 0.6 else "black"
            panel.text(x, y, text, ha="center", va="center", color=color, fontsize=9)
    return image


def _draw_staircase(panel: Axes, lags: Sequence[int], chunks: Sequence[int]) -> None:
    """Between the last chunk that is too short and the first that holds the answer, where both rise."""
    if list(chunks) != sorted(chunks):
        return
    border = [sum(chunk < lag + 1 for chunk in chunks) - 0.5 for lag in lags]
    xs = [edge for edge in border for _ in range(2)]
    ys = [y + side for y in range(len(lags)) for side in (-0.5, 0.5)]
    panel.plot(xs, ys, color="red", linewidth=2.5, label="chunk = lag + 1")
    panel.set(xlim=(-0.5, len(chunks) - 0.5), ylim=(-0.5, len(lags) - 0.5))


@own_settings()
def draw_map_seeds(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path, *, title: str
) -> None:
    """Draw the same with every seed as a point: accuracy against chunk length, a panel for each lag.

    Args:
        grid_axes: The values of `lag`, `chunk` and `learning_rate`.
        cells: With these names and `accuracies`.
        path: The PNG file.
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
                style = {"color": f"C{number}", "marker": "osD^v"[number % 5], "linestyle": ""}
                panel.plot([x + shift] * len(values), values, markersize=4, alpha=0.6, label=f"{rate:g}", **style)
        panel.axvline(
            sum(chunk < lag + 1 for chunk in chunks) - 0.5, color="red", linewidth=1.5, label="chunk = lag + 1"
        )
        panel.set(ylim=(-0.04, 1.06), title=f"lag {lag}", xlim=(-0.6, len(chunks) - 0.4))
        panel.set_xticks(range(len(chunks)), [str(chunk) for chunk in chunks])
        panel.grid(alpha=0.3)
    for panel in list(panels.flat)[len(lags) :]:
        panel.set_visible(False)
    figure.supxlabel("chunk length (steps)", fontsize=10)
    figure.supylabel("accuracy on fresh symbols, a point a seed", fontsize=10)
    found = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside right center", title="learning rate")
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


@own_settings()
def draw_lags(
    grid_axes: Mapping[str, Sequence[Any]], cells: Sequence[dict[str, Any]], path: str | Path, *, title: str
) -> None:
    """Draw accuracy and sequences to 99 % against the lag, every seed a point, the state carried and reset.

    Args:
        grid_axes: The values of `lag`, of `hidden_size` or `model_options`, and of `carry`.
        cells: With these names, `accuracies`, `accuracy`, `sequences_to_99` and its half interval.
        path: The PNG file.
        title: Stands above it.
    """
    size_name = size_axis(grid_axes)
    lags, sizes, carries = (grid_axes[name] for name in ("lag", size_name, "carry"))
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    for number, (size, carry) in enumerate(itertools.product(sizes, carries)):
        line = [cell for cell in cells if (cell[size_name], cell["carry"]) == (size, carry)]
        # Beside each other, so that equal results do not hide one another.
        shift = 0.09 * (number - (len(sizes) * len(carries) - 1) / 2)
        places = [cell["lag"] + shift for cell in line]
        which = list(sizes).index(size)
        style: dict[str, Any] = {"marker": "osD^v"[which % 5], "color": f"C{which}", "markersize": 5}
        style |= {"linestyle": "-"} if carry == "keep" else {"linestyle": ":", "mfc": "white"}
        label = f"{'-' if size is None else size}, state {'carried' if carry == 'keep' else 'reset'}"
        left.plot(places, [cell["accuracy"] for cell in line], label=label, **style)
        for place, cell in zip(places, line, strict=True):
            values = cell["accuracies"]
            left.plot([place] * len(values), values, ".", color=f"C{which}", markersize=4, alpha=0.5)
        times = [float("nan") if cell["sequences_to_99"] is None else cell["sequences_to_99"] for cell in line]
        halves = [cell["sequences_to_99_half_interval"] or 0.0 for cell in line]
        right.errorbar(places, times, halves, capsize=3, **style)
        for place, time, cell in zip(places, times, line, strict=True):
            if 0 < cell["seeds_to_99"] < cell["seeds"]:
                which_seeds = f"{cell['seeds_to_99']} of {cell['seeds']} seeds "
                right.text(place, time, which_seeds, ha="right", va="center", fontsize=8)
    left.set(xlabel="lag (steps)", ylabel="accuracy on fresh sequences, a dot a seed", ylim=(-0.03, 1.03))
    right.set(xlabel="lag (steps)", ylabel="sequences to 99 % (95 % over seeds)\n(no mark: not reached)")
    right.set_xlim(left.get_xlim())
    right.set_ylim(bottom=0)
    for panel in (left, right):
        panel.set_xticks(lags, [str(lag) for lag in lags])
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    figure.legend(loc="outside right center", title=size_name.replace("_", " "))
    save_figure(figure, path)
