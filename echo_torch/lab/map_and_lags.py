"""Two grids with figures of their own: the map of lag against chunk length, and the lags of mode lag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echo_torch.experiments.configuration import (
    Configuration,
    network_in_words,
    refuse_without_effect,
)
from echo_torch.experiments.model_options import canonical_model_options
from echo_torch.experiments.options import is_own_model
from echo_torch.lab.grids import Grid
from echo_torch.lab.pictures import check_figures, picture, remove_other_forms
from echo_torch.lab.sweep import cells_of, check_none_failed, is_done, train_grid
from echo_torch.lab.tables import (
    RESULT_COLUMNS,
    markdown_table,
    result_cells,
    size_axis,
    with_interval,
    write_table,
)


def run_map(
    grid: Grid | None = None,
    folder: str | Path = "runs/map",
    *,
    num_jobs: int | None = None,
    shard: str | None = None,
    progress: bool = False,
    figures: str = "png",
) -> list[dict[str, Any]]:
    """Train a grid of lags, chunk lengths and learning rates; leave its runs, a table and figures in a folder.

    Args:
        grid: As `map_grid` makes it; None: its defaults.
        folder: Where everything goes. Finished runs there are kept, so an interrupted map goes on.
        num_jobs: Processes; None: one for each core.
        shard: As of `train_many`; the last part to be done makes table and figures.
        progress: Whether a progress bar is drawn on standard error.
        figures: "svg" draws figures as SVG.

    Returns:
        A row for each cell, as in map.json; `map_table` makes text of them. None where runs are left to other parts.

    Raises:
        RuleError: If a cell breaks a rule.
        UserError: If the folder cannot be used; if a run has failed, when all else is done.
        Interrupted: At Ctrl-C and SIGTERM; finished runs stay.
    """
    grid, folder, figures = grid or map_grid(), Path(folder), check_figures(figures)
    rows = train_grid(grid, folder, num_jobs=num_jobs, shard=shard, progress=progress)
    if not is_done(rows):
        return []
    cells = cells_of(grid, rows, folder)
    write_table(folder, "map", cells, map_table(grid, cells))

    from echo_torch.lab.grid_figures import draw_map, draw_map_seeds

    c = next(iter(grid.runs().values()))
    title = f"aligned lanes, {c.vocabulary_size} symbols, {_network_in_words(c)}, {c.reading.updates} updates"
    title += f", {grid.seeds_in_words}"
    for name, draw in (("map", draw_map), ("map_seeds", draw_map_seeds)):
        draw(grid.axes, cells, picture(folder, name, figures), title=title)
        remove_other_forms(picture(folder, name, figures))
    check_none_failed(rows)
    return cells


def map_grid(
    lags: Sequence[int] = (0, 1, 2, 3, 5),
    chunks: Sequence[int] = (1, 2, 3, 4, 5, 6, 10),
    learning_rates: Sequence[float] = (0.001, 0.003, 0.01),
    num_seeds: int = 1,
    *,
    vocabulary_size: int = 10,
    hidden_size: int | None = None,
    updates: int = 4000,
    model: str = "lstm",
    model_options: Any = None,
) -> Grid:
    """The grid of `run_map`: aligned lanes over lags, chunk lengths and learning rates.

    Args:
        lags: Rows.
        chunks: Columns.
        learning_rates: A table for each.
        num_seeds: Seeds 1..n for every cell.
        vocabulary_size: Of every run.
        hidden_size: Of every run, None: 50; a user's own model has none.
        updates: Of every run.
        model: The network, one of the words or a user's own.
        model_options: Arguments of a user's own model.

    Raises:
        RuleError: If an option has no effect with this model.
    """
    refuse_without_effect(model, {"hidden_size": hidden_size, "model_options": model_options})
    axes = {"lag": lags, "chunk": chunks, "learning_rate": learning_rates}
    network: dict[str, Any] = {"model_options": canonical_model_options(model_options)}
    if not is_own_model(model):
        network = {"hidden_size": 50 if hidden_size is None else hidden_size}
    options = {"vocabulary_size": vocabulary_size, **network, "updates": updates, "lanes": 32, "model": model}
    return Grid("aligned", axes, num_seeds, options)


def _network_in_words(configuration: Configuration) -> str:
    """The network for a title; the LSTM goes without saying."""
    words = network_in_words(configuration)
    return (
        words
        if configuration.model == "lstm" or is_own_model(configuration.model)
        else f"{configuration.model}, {words}"
    )


def run_lags(
    grid: Grid | None = None,
    folder: str | Path = "runs/lags",
    *,
    num_jobs: int | None = None,
    shard: str | None = None,
    progress: bool = False,
    figures: str = "png",
) -> list[dict[str, Any]]:
    """Train mode lag over a grid of lags, sizes and carries; leave runs, table and figure in a folder.

    Args:
        grid: As `lags_grid` makes it; None: its defaults.
        folder: As of `run_map`, like all that follow.
        num_jobs: As of `run_map`.
        shard: As of `run_map`.
        progress: As of `run_map`.
        figures: As of `run_map`.

    Returns:
        A row for each cell, as in lags.json; `lags_table` makes text of them. None where runs are left to other parts.

    Raises:
        RuleError: If a cell breaks a rule.
        UserError: If the folder cannot be used; if a run has failed, when all else is done.
        Interrupted: At Ctrl-C and SIGTERM; finished runs stay.
    """
    grid, folder, figures = grid or lags_grid(), Path(folder), check_figures(figures)
    rows = train_grid(grid, folder, num_jobs=num_jobs, shard=shard, progress=progress)
    if not is_done(rows):
        return []
    cells = cells_of(grid, rows, folder)
    write_table(folder, "lags", cells, lags_table(cells))

    from echo_torch.lab.grid_figures import draw_lags

    model = grid.options.get("model", "lstm")
    network = "" if model == "lstm" else f", {model}"
    title = f"mode lag{network}, {grid.options['sequences']} sequences, {grid.seeds_in_words}"
    draw_lags(grid.axes, cells, picture(folder, "lags", figures), title=title)
    remove_other_forms(picture(folder, "lags", figures))
    check_none_failed(rows)
    return cells


def lags_grid(
    lags: Sequence[int] = (1, 2, 3, 4),
    hidden_sizes: Sequence[int] | None = None,
    carries: Sequence[str] = ("keep", "reset"),
    num_seeds: int = 3,
    *,
    sequences: int = 2000,
    model: str = "lstm",
    model_options: Sequence[Any] | None = None,
) -> Grid:
    """The grid of `run_lags`: mode lag over lags, sizes, and the state carried or reset.

    Args:
        lags: The lags.
        hidden_sizes: The sizes, None: 25, 50 and 100; a user's own model has none.
        carries: The state carried, reset, or both.
        num_seeds: Seeds 1..n for every cell.
        sequences: Of every run.
        model: The network, one of the words or a user's own.
        model_options: Of a user's own model: a list with several sets of its arguments, which stand where the sizes do.

    Raises:
        RuleError: If an option has no effect with this model.
    """
    refuse_without_effect(model, {"hidden_size": hidden_sizes, "model_options": model_options})
    sizes: dict[str, Sequence[Any]] = {"hidden_size": (25, 50, 100) if hidden_sizes is None else hidden_sizes}
    if is_own_model(model):
        texts = map(canonical_model_options, model_options or [None])
        sizes = {"model_options": list(dict.fromkeys(texts))}
    return Grid("lag", {"lag": lags, **sizes, "carry": carries}, num_seeds, {"sequences": sequences, "model": model})


def map_table(grid: Grid, cells: Sequence[dict[str, Any]]) -> str:
    """The accuracy of the cells as a markdown table: learning rates and lags down, chunks across."""
    by_place = {(cell["learning_rate"], cell["lag"], cell["chunk"]): cell for cell in cells}
    chunks = grid.axes["chunk"]
    lines = [
        [f"{rate:g}", str(lag), *(with_interval(by_place[rate, lag, chunk]) for chunk in chunks)]
        for rate in grid.axes["learning_rate"]
        for lag in grid.axes["lag"]
    ]
    return markdown_table(["learning rate", "lag", *(f"chunk {chunk}" for chunk in chunks)], lines)


def lags_table(cells: Sequence[dict[str, Any]]) -> str:
    """A row for each lag, size and carry: skill, time to it, seconds and parameters, as markdown."""
    words = {"keep": "carried", "reset": "reset"}
    size = size_axis(cells[0])
    lines = [
        [
            str(cell["lag"]),
            "-" if cell[size] is None else str(cell[size]),
            words[cell["carry"]],
            *result_cells(cell),
            f"{cell['seconds']:.1f}",
            f"{cell['parameters']:,}",
        ]
        for cell in cells
    ]
    names = ["lag", size.replace("_", " "), "state", *RESULT_COLUMNS, "seconds", "parameters"]
    return markdown_table(names, lines)
