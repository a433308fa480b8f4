"""Pictures of runs and of what their data path allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.experiments.configuration import Configuration
from echo_torch.intervals import wilson_interval
from echo_torch.lab.drawing import MISSING, READ, new_figure, own_settings, save_figure
from echo_torch.lab.run_directory import RunDirectory


@own_settings()
def draw_curve(run: RunDirectory, configuration: Configuration) -> None:
    """Draw a run into curve.png: loss and accuracy over the training, and what the evaluation found by chunk.

    Args:
        run: A finished run.
        configuration: Its configuration.
    """
    metrics = run.read_metrics()
    chance = 1 / configuration.vocabulary_size
    figure = new_figure(10, 5)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.7, 1))
    lower = figure.add_subplot(grid[1, 0])
    upper, right = figure.add_subplot(grid[0, 0], sharex=lower), figure.add_subplot(grid[:, 1])
    column, label = configuration.reading.progress
    drawn = metrics[column]
    upper.plot(drawn, metrics["accuracy"], color="C0", marker=_marker(metrics), label="training")
    lower.plot(drawn, metrics["loss"], color="C1", marker=_marker(metrics), label="training")
    if validation := run.read_validation():
        checked = validation[column]
        for axes, name in ((upper, "accuracy"), (lower, "loss")):
            axes.plot(checked, validation[name], "D", color="black", markersize=4, label="validation")
    upper.axhline(chance, color="0.4", linestyle="--", label=f"chance, 1/{configuration.vocabulary_size}")
    upper.set(ylabel="accuracy", ylim=(-0.03, 1.03))
    upper.tick_params(labelbottom=False)
    upper.legend(loc="center right")
    lower.axhline(log(configuration.vocabulary_size), color="0.4", linestyle="--", label="loss of a uniform guess")
    lower.set(ylabel="loss (nats)", xlabel=label)
    lower.set_ylim(bottom=0)
    lower.legend(loc="best")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    draw_by_chunk(right, run.read_result())
    if (most := configuration.reading.max_chunks_told_apart) is not None:
        right.set_xlabel(f"chunk since the reset ({most}: and all later)")
    figure.suptitle(_title(configuration))
    save_figure(figure, run.curve)


def draw_by_chunk(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draw the accuracy of an evaluation by chunk of the sequence, the state carried and reset, with its intervals.

    Args:
        axes: Where.
        result: As in result.json.
    """
    asked = result["targets_by_chunk"]
    styles: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
        ("accuracy_by_chunk", "as in training", -0.08, {"color": "C0", "marker": "o"}),
        ("accuracy_reset_by_chunk", "state reset at every chunk", 0.08, {"color": "C1", "marker": "s", "mfc": "white"}),
    )
    for name, label, shift, style in styles:
        known = [(n, share, of) for n, (share, of) in enumerate(zip(result[name], asked, strict=True), 1) if of]
        bounds = [wilson_interval(round(share * of), of) for _, share, of in known]
        errors = [
            [max(0.0, share - low) for (_, share, _), (low, _) in zip(known, bounds, strict=True)],
            [max(0.0, high - share) for (_, share, _), (_, high) in zip(known, bounds, strict=True)],
        ]
        places, shares = [n + shift for n, _, _ in known], [share for _, share, _ in known]
        axes.errorbar(places, shares, errors, label=label, linestyle=":", linewidth=1, capsize=2, **style)
    axes.axhline(result["chance"], color="0.4", linestyle="--", label="chance")
    if result["ceiling"] is not None:
        axes.axhline(result["ceiling"], color="0.1", linewidth=1.2, label="ceiling, all chunks")
    axes.set(ylim=(-0.03, 1.06), xlim=(0.5, len(asked) + 0.5), ylabel="accuracy on fresh sequences (95 % interval)")
    axes.set_xlabel("chunk of the sequence")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")


@own_settings()
def draw_side_by_side(runs: Sequence[RunDirectory], path: str | Path) -> None:
    """Draw the accuracy of several runs over their training, a panel for each, into one picture.

    Args:
        runs: Finished runs.
        path: The PNG file.
    """
    figure = new_figure(3.6 * len(runs), 3)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for axes, run in zip(panels[0], runs, strict=True):
        configuration, metrics = run.read_saved()[0], run.read_metrics()
        axes.plot(metrics["sequences"], metrics["accuracy"], color="C0")
        axes.axhline(1 / configuration.vocabulary_size, color="0.4", linestyle="--", label="chance")
        axes.set(ylim=(-0.03, 1.03), title=_title(configuration), xlabel="sequences drawn")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("accuracy in training")
    panels[0][0].legend(loc="center right")
    save_figure(figure, path)


def _marker(metrics: dict[str, list[float]]) -> str:
    return "o" if len(metrics["update"]) < 20 else ""


def _title(c: Configuration) -> str:
    return f"{c.mode}: lag {c.reading.lag}, {c.vocabulary_size} symbols, seed {c.seed}"


_ASKED = "#1b7837"
_EXAMPLE = "#d95f02"
_MAX_LANES, _MAX_COLUMNS, _MAX_CHUNKS = 8, 24, 5


@own_settings()
def draw_reach(chunks: Sequence[Chunk], lag: int, path: str | Path, *, title: str = "") -> None:
    """Draw what each row of the batch reads, where it jumps, and whether it has read what it is asked for.

    A box is a column of a chunk, the number in it the step that is read. Under it stands which step's symbol is
    asked, with a tick where this row has read it since its reset and a cross where it has not; for one cross an
    arrow shows which row did read it. From box to box the state goes on (grey), jumps (red) or is reset (a bar).

    Args:
        chunks: The first chunks of a stream; as many are drawn as there is room for.
        lag: How many steps back the answers lie.
        path: The PNG file.
        title: Stands above it.
    """
    num_steps = chunks[0].symbols.shape[1]
    chunks = chunks[: min(_MAX_CHUNKS, max(1, _MAX_COLUMNS // num_steps))]
    num_lanes = min(_MAX_LANES, len(chunks[0].symbols))
    num_steps = min(num_steps, _MAX_COLUMNS)
    pitch = num_steps + 1.2  # columns of a chunk and the space between chunks
    width = max(7.0, 0.62 * pitch * len(chunks) + 1.6)
    figure = new_figure(width, 0.85 * num_lanes + 2.1)
    axes = figure.subplots()
    seen: list[set[tuple[int, int]]] = [set() for _ in range(num_lanes)]
    last: list[tuple[int, int] | None] = [None] * num_lanes
    drawn: dict[tuple[int, int], tuple[float, int]] = {}  # where each step of each sequence is read first
    missed: list[tuple[float, int, tuple[int, int]]] = []  # where it is asked without having been read there
    for number, chunk in enumerate(chunks):
        for lane in range(num_lanes):
            if chunk.starts[lane]:
                seen[lane], last[lane] = set(), None
            for column in range(num_steps):
                place = (int(chunk.sequence[lane]), int(chunk.step[lane, column]))
                if place[1] < 0:
                    continue
                x = number * pitch + column
                _draw_hand_over(axes, x, lane, last[lane], place, is_border=column == 0)
                last[lane] = place
                is_read = bool(chunk.symbols[lane, column] >= 0)
                if is_read:
                    seen[lane].add(place)
                    drawn.setdefault(place, (x, lane))
                is_asked = int(chunk.targets[lane, column]) != NOT_ASKED
                answer = (place[0], place[1] - lag)
                has_read = answer in seen[lane]
                if is_asked and not has_read:
                    missed.append((x, lane, answer))
                _draw_cell(axes, x, lane, place[1], is_read)
                if is_asked:
                    _draw_question(axes, x, lane, answer[1], has_read)
    example = _draw_example(axes, missed, drawn)
    middles = [number * pitch + (num_steps - 1) / 2 for number in range(len(chunks))]
    axes.set_xticks(middles, [f"chunk {chunk.index}" for chunk in chunks])
    axes.set_yticks(range(num_lanes), [f"lane {lane}" for lane in range(num_lanes)])
    axes.set(
        xlim=(-1.4, len(chunks) * pitch - 0.6), ylim=(num_lanes - 0.3, -0.75), xlabel="chunk, in order of training"
    )
    axes.set_ylabel("row of the batch")
    axes.set_title(title)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    keys: list[Artist] = [
        Patch(facecolor=READ, edgecolor="0.3", label="step read"),
        *_key_to_missing(chunks),
        Line2D([], [], color=_ASKED, marker="$\\checkmark$", linestyle="", label="asked, and read by this row before"),
        Line2D([], [], color=MISSING, marker="x", linestyle="", label="asked, but never read by this row"),
        Line2D([], [], color="0.55", label="state goes on without a gap"),
        Line2D([], [], color=MISSING, linestyle="--", label="state jumps (+: steps skipped, -: read again)"),
        Line2D([], [], color="0.1", linewidth=3, label="state reset"),
    ]
    figure.legend(handles=keys + example, loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    save_figure(figure, path)


_LOST: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.6", "linestyle": ":"}  # a step without its symbol


def _draw_cell(axes: Axes, x: float, lane: int, step: int, is_read: bool) -> None:
    style = {"facecolor": READ, "edgecolor": "0.3"} if is_read else _LOST
    axes.add_patch(Rectangle((x - 0.45, lane - 0.3), 0.9, 0.42, **style))
    color = "black" if is_read else "0.6"
    axes.text(x, lane - 0.09, str(step), ha="center", va="center", fontsize=10, color=color)


def _draw_question(axes: Axes, x: float, lane: int, asked: int, has_read: bool) -> None:
    mark, color = ("\u2713", _ASKED) if has_read else ("\u2717", MISSING)
    axes.text(x, lane + 0.29, f"{asked}? {mark}", ha="center", va="center", fontsize=8.5, color=color, weight="bold")


def _key_to_missing(chunks: Sequence[Chunk]) -> list[Artist]:
    if any(bool(((chunk.symbols < 0) & (chunk.step >= 0)).any()) for chunk in chunks):
        return [Patch(label="step passed, its symbol missing", **_LOST)]
    return []


def _draw_hand_over(
    axes: Axes, x: float, lane: int, last: tuple[int, int] | None, place: tuple[int, int], *, is_border: bool
) -> None:
    y = lane - 0.09
    if last is None:
        axes.plot([x - 0.62, x - 0.62], [lane - 0.32, lane + 0.14], color="0.1", linewidth=3)
        return
    gap = place[1] - last[1] - 1 if place[0] == last[0] else None
    begin = x - (1.75 if is_border else 0.55)
    if gap == 0:
        axes.plot([begin, x - 0.45], [y, y], color="0.55", linewidth=1.5, zorder=0)
        return
    axes.plot([begin, x - 0.45], [y, y], color=MISSING, linewidth=1.5, linestyle="--", zorder=0)
    label = "other" if gap is None else f"{gap:+d}"
    axes.text((begin + x - 0.45) / 2, lane - 0.4, label, ha="center", va="center", fontsize=8, color=MISSING)


def _draw_example(
    axes: Axes, missed: list[tuple[float, int, tuple[int, int]]], drawn: dict[tuple[int, int], tuple[float, int]]
) -> list[Line2D]:
    """Show for one unanswerable question which row did read the answer; returns the key to the arrow, if any."""
    for x, lane, answer in missed:
        there, other = drawn.get(answer, (x, lane))
        if there < x and other != lane:
            box = Rectangle((there - 0.45, other - 0.3), 0.9, 0.42, fill=False, edgecolor=_EXAMPLE, linewidth=2.5)
            axes.add_patch(box)
            arrow = {"arrowstyle": "->", "color": _EXAMPLE, "linewidth": 1.8}
            axes.annotate("", xy=(x - 0.3, lane + 0.36), xytext=(there + 0.45, other - 0.2), arrowprops=arrow, zorder=5)
            label = f"example: lane {lane} is asked for step {answer[1]}, which lane {other} has read"
            return [Line2D([], [], color=_EXAMPLE, label=label)]
    return []


@own_settings()
def draw_comparison(rows: Sequence[dict[str, Any]], runs: dict[str, list[RunDirectory]], path: str | Path) -> None:
    """Draw the learning curve of every arm, all seeds, with ceiling and chance.

    Args:
        rows: As `comparison.compare` makes them.
        runs: The runs of each arm.
        path: The PNG file.
    """
    num_columns = min(4, len(rows))
    num_rows = -(-len(rows) // num_columns)
    figure = new_figure(3.1 * num_columns, 2.6 * num_rows + 0.5)
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    for axes, row in zip(panels.flat, rows, strict=False):
        for run in runs[row["arm"]]:
            metrics = run.read_metrics()
            axes.plot([symbols / 1000 for symbols in metrics["symbols"]], metrics["accuracy"], color="C0", alpha=0.6)
        axes.axhline(row["ceiling"], color="0.1", linewidth=1.2, label="ceiling")
        axes.axhline(row["chance"], color="0.4", linestyle="--", linewidth=1.2, label="chance")
        axes.set(title=row["label"], ylim=(-0.04, 1.06))
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
    for axes in list(panels.flat)[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("fresh symbols drawn (thousands)", fontsize=10)
    figure.supylabel("accuracy in training", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    seed = Line2D([], [], color="C0", alpha=0.6, label="one seed")
    figure.legend(handles=[seed, *handles], labels=["one seed", *labels], loc="outside upper center", ncols=3)
    save_figure(figure, path)


@own_settings()
def draw_reach_by_horizon(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw the arms in the 2 x 2 of reach by horizon: whether an answer was read, and whether a gradient gets there.

    Args:
        rows: As `comparison.compare` makes them.
        path: The PNG file.
    """
    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    cells: dict[tuple[bool, bool], list[str]] = {}
    for row in rows:
        is_reachable = row["reachable_share"] >= 0.5
        # Without the cut whatever a lane reads lies within the horizon, reachable or not.
        is_near = row["cut"] == "sequence" or row["in_horizon_share"] >= 0.5
        cells.setdefault((is_reachable, is_near), []).append(f"{row['label']}: {row['accuracy']:.1%}")
    for is_reachable in (False, True):
        for is_near in (False, True):
            x, y = int(is_near), int(is_reachable)
            shade = "0.92" if is_reachable and is_near else "1.0"
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shade, edgecolor="0.2"))
            text = "\n".join(cells.get((is_reachable, is_near), ["no arm"]))
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=10)
    axes.set(xlim=(0, 2), ylim=(0, 2))
    axes.set_xticks([0.5, 1.5], ["no gradient gets from\nquestion to answer", "the gradient\ngets there"])
    axes.set_yticks([0.5, 1.5], ["answer never\nread by the row", "answer read\nby the row"])
    axes.set(xlabel="horizon", ylabel="reach", title="accuracy on fresh sequences, mean over seeds")
    axes.tick_params(length=0)
    save_figure(figure, path)
