"""Pictures of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log
from pathlib import Path
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.readings import Reading
from echo_torch.intervals import wilson_interval
from echo_torch.lab.drawing import BLUE, FAINT, INK, ORANGE, READ, new_figure, own_settings, save_figure, set_title
from echo_torch.lab.run_directory import RunDirectory


@own_settings()
def draw_curve(
    run: RunDirectory, configuration: Configuration, result: Mapping[str, Any] | None, path: str | Path | IO[bytes]
) -> None:
    """Draw a run: loss and accuracy over the training, and, where it is finished, what the evaluation found by chunk.

    Args:
        run: A run with a row of metrics.
        configuration: Its configuration.
        result: As in result.json; None: it is not finished.
        path: As of `draw_reach`.
    """
    figure = new_figure(10, 5)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.7, 1))
    columns = slice(None) if result is None else 0
    lower = figure.add_subplot(grid[1, columns])
    upper = figure.add_subplot(grid[0, columns], sharex=lower)
    _draw_training(upper, lower, run, configuration)
    if result is not None:
        right = figure.add_subplot(grid[:, 1])
        draw_by_chunk(right, result)
        right.set_xlabel(chunks_in_words(configuration.reading))
    set_title(figure, _title(configuration))
    save_figure(figure, path)


def _draw_training(upper: Axes, lower: Axes, run: RunDirectory, configuration: Configuration) -> None:
    """Accuracy above and loss below, with what both are compared with."""
    column, label = configuration.reading.progress
    metrics, validation, size = run.read_metrics(), run.read_validation(), configuration.vocabulary_size
    uniform = log(size)
    for axes, name, color in ((upper, "accuracy", BLUE), (lower, "loss", ORANGE)):
        axes.plot(metrics[column], metrics[name], color=color, marker=_marker(metrics), label="training")
        if validation:
            axes.plot(validation[column], validation[name], "D", color="black", markersize=4, label="validation")
        axes.grid(alpha=0.3)
    upper.axhline(1 / size, color=FAINT, linestyle="--", label=f"chance, 1/{size}")
    lower.axhline(uniform, color=FAINT, linestyle="--", label="loss of a uniform guess")
    upper.set(ylabel="accuracy", ylim=(-0.03, 1.03))
    upper.tick_params(labelbottom=False)
    lower.set(ylabel="loss (nats)", xlabel=label)
    lower.set_ylim(*_loss_limits([uniform, *metrics["loss"], *(validation or {}).get("loss", [])]))
    for axes in (upper, lower):
        axes.legend(loc="best")


def _loss_limits(losses: Sequence[float]) -> tuple[float, float]:
    """From zero where some loss comes near it; else around all of them, so that what changes can be seen."""
    known = [loss for loss in losses if isfinite(loss)]
    low, high = min(known), max(known)
    if low < high / 2:
        return 0.0, 1.1 * high
    room = max(0.3 * (high - low), 0.01 * high)
    return low - room, high + room


def chunks_in_words(reading: Reading) -> str:
    """What an evaluation counts its chunks from, and where the last place holds all later ones."""
    most = reading.max_chunks_told_apart
    return "chunk of the sequence" if most is None else f"chunk since the reset ({most - 1}: and all later)"


def draw_by_chunk(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draw the accuracy of an evaluation by chunk of the sequence, the state carried and reset, with its intervals.

    Args:
        axes: Where.
        result: As in result.json.
    """
    asked = result["targets_by_chunk"]
    styles: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
        ("accuracy_by_chunk", "as in training", -0.08, {"color": BLUE, "marker": "o"}),
        (
            "accuracy_reset_by_chunk",
            "state reset at every chunk",
            0.08,
            {"color": ORANGE, "marker": "s", "mfc": "white"},
        ),
    )
    for name, label, shift, style in styles:
        known = [(n, share, of) for n, (share, of) in enumerate(zip(result[name], asked, strict=True)) if of]
        bounds = [wilson_interval(round(share * of), of) for _, share, of in known]
        errors = [
            [max(0.0, share - low) for (_, share, _), (low, _) in zip(known, bounds, strict=True)],
            [max(0.0, high - share) for (_, share, _), (_, high) in zip(known, bounds, strict=True)],
        ]
        places, shares = [n + shift for n, _, _ in known], [share for _, share, _ in known]
        axes.errorbar(places, shares, errors, label=label, linestyle=":", linewidth=1, capsize=2, **style)
    axes.axhline(result["chance"], color=FAINT, linestyle="--", label="chance")
    if result["ceiling"] is not None:
        axes.axhline(result["ceiling"], color=INK, linewidth=1.2, label="ceiling, all chunks")
    axes.set(ylim=(-0.03, 1.06), xlim=(-0.5, len(asked) - 0.5), ylabel="accuracy on fresh sequences (95 % interval)")
    axes.set_xlabel("chunk of the sequence")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")


@own_settings()
def draw_side_by_side(runs: Sequence[RunDirectory], path: str | Path | IO[bytes]) -> None:
    """Draw the accuracy of several runs over their training, a panel for each, into one picture.

    Args:
        runs: Finished runs.
        path: As of `draw_reach`.
    """
    figure = new_figure(3.6 * len(runs), 3)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for axes, run in zip(panels[0], runs, strict=True):
        configuration, metrics = run.read_saved()[0], run.read_metrics()
        axes.plot(metrics["sequences"], metrics["accuracy"], color=BLUE)
        axes.axhline(1 / configuration.vocabulary_size, color=FAINT, linestyle="--", label="chance")
        axes.set(ylim=(-0.03, 1.03), title=_title(configuration), xlabel="sequences drawn")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("accuracy in training")
    panels[0][0].legend(loc="center right")
    save_figure(figure, path)


def _marker(metrics: dict[str, list[float]]) -> str:
    return "o" if len(metrics["update"]) < 20 else ""


def _title(c: Configuration) -> str:
    return f"{c.mode}: lag {c.reading.lag}, {c.vocabulary_size} symbols, seed {c.seed}"


@own_settings()
def draw_comparison(
    rows: Sequence[dict[str, Any]], runs: dict[str, list[RunDirectory]], path: str | Path | IO[bytes]
) -> None:
    """Draw the learning curve of every arm, all seeds, with ceiling and chance.

    Args:
        rows: For each arm `arm`, `label`, `ceiling` and `chance`.
        runs: The runs of each arm, by `arm`.
        path: As of `draw_reach`.
    """
    num_columns = min(4, len(rows))
    num_rows = -(-len(rows) // num_columns)
    figure = new_figure(3.1 * num_columns, 2.6 * num_rows + 0.5)
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    one_seed: dict[str, Any] = {"color": BLUE, "alpha": 0.6, "markersize": 3, "linestyle": "-"}
    for axes, row in zip(panels.flat, rows, strict=False):
        for run in runs[row["arm"]]:
            metrics = run.read_metrics()
            axes.plot(
                [symbols / 1000 for symbols in metrics["symbols"]],
                metrics["accuracy"],
                marker=_marker(metrics),
                **one_seed,
            )
        if row["ceiling"] is not None:  # a user's own numbers have none that is known
            axes.axhline(row["ceiling"], color=INK, linewidth=1.2, label="ceiling")
        axes.axhline(row["chance"], color=FAINT, linestyle="--", linewidth=1.2, label="chance")
        axes.set(title=row["label"], ylim=(-0.04, 1.06))
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
    for axes in list(panels.flat)[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("fresh symbols drawn (thousands)", fontsize=10)
    figure.supylabel("accuracy in training", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    seed = Line2D([], [], color=BLUE, alpha=0.6, label="one seed")
    figure.legend(handles=[seed, *handles], labels=["one seed", *labels], loc="outside upper center", ncols=3)
    save_figure(figure, path)


@own_settings()
def draw_reach_by_horizon(rows: Sequence[dict[str, Any]], path: str | Path | IO[bytes]) -> None:
    """Draw the arms in the 2 x 2 of reach by horizon: whether an answer was read, and whether a gradient gets there.

    Args:
        rows: As `comparison.compare` makes them.
        path: As of `draw_reach`.
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
            shade = READ if is_reachable and is_near else "1.0"
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shade, edgecolor="0.2"))
            text = "\n".join(cells.get((is_reachable, is_near), ["no arm"]))
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=10)
    axes.set(xlim=(0, 2), ylim=(0, 2))
    axes.set_xticks([0.5, 1.5], ["no gradient gets from\nquestion to answer", "the gradient\ngets there"])
    axes.set_yticks([0.5, 1.5], ["answer never\nread by the row", "answer read\nby the row"])
    axes.set(xlabel="horizon", ylabel="reach", title="accuracy on fresh sequences, mean over seeds")
    axes.tick_params(length=0)
    save_figure(figure, path)
