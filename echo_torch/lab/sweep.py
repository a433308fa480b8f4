"""A sweep: a grid of runs trained, and left with tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.lab.grids import Grid, write_grid
from echo_torch.lab.locks import is_locked
from echo_torch.lab.many import Executor, train_many
from echo_torch.lab.pictures import check_figures, picture, remove_other_forms
from echo_torch.lab.rows import DAMAGED, FAILED, FINISHED, GRID, missing_in_words, rows_of, saved_grid, write_rows
from echo_torch.lab.run_directory import PAGE, RunDirectory
from echo_torch.lab.tables import RESULT_COLUMNS, markdown_table, result_cells, write_table

MAX_AXES_DRAWN = 3


def run_sweep(
    grid: Grid,
    folder: str | Path = "runs/sweep",
    *,
    num_jobs: int | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    progress: bool = False,
    figures: str = "png",
) -> list[dict[str, Any]]:
    """Train a grid; leave its runs, results.csv, curves.csv, a table and, of one to three axes, a figure in a folder.

    Args:
        grid: Which runs there are.
        folder: Where everything goes. Finished runs there are kept, so an interrupted sweep goes on, and one with more
            seeds or values trains only what is new.
        num_jobs: As of `train_many`, like `executor`, `shard` and `progress`.
        executor: The same.
        shard: The same. The tables are made by the shard that finishes the last run.
        progress: The same.
        figures: "svg" draws the figure as SVG.

    Returns:
        A row for each run, as `read_sweep` gives them; of one that is not finished `status` says why.

    Raises:
        RuleError: If a combination breaks a rule.
        UserError: If the folder cannot be used, or holds a sweep with runs that are not in this one.
        Interrupted: At Ctrl-C and SIGTERM; finished runs stay.
    """
    folder, figures = Path(folder), check_figures(figures)
    rows = train_grid(grid, folder, num_jobs=num_jobs, executor=executor, shard=shard, progress=progress)
    if is_done(rows):
        cells = cells_of(grid, rows, folder)
        write_table(folder, "table", cells, sweep_table(grid, cells))
        _draw(grid, cells, next(iter(grid.runs().values())), picture(folder, "figure", figures))
    return rows


def train_grid(grid: Grid, folder: Path, *, shard: str | None = None, **options: Any) -> list[dict[str, Any]]:
    """Train a grid, and leave its rows in a folder where no run is left; arguments as of `run_sweep`."""
    runs = grid.runs()

    def begin() -> None:
        _check_contains(grid, folder)  # when no other sweep can write it any more
        (folder / PAGE).unlink(missing_ok=True)  # it shows what was found before
        write_grid(grid, folder / GRID)

    train_many(runs, folder, shard=shard, failures={}, begin=begin, **options)
    rows = rows_of(grid, runs, folder)
    if is_done(rows):
        write_rows(folder, rows)
    return rows


def is_done(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no run is left, be it for another shard."""
    return all(row["status"] in (FINISHED, FAILED) for row in rows)


def check_none_failed(rows: Sequence[Mapping[str, Any]]) -> None:
    """Name the runs that have failed, when all else is done.

    Raises:
        UserError: If there are some.
    """
    if wrong := [row for row in rows if row["status"] in (FAILED, DAMAGED)]:
        raise UserError(f"{missing_in_words(rows)} {wrong[0]['reason']}")


def _check_contains(grid: Grid, folder: Path) -> None:
    """Refuse a folder with a sweep whose runs would stand beside this one's, in no table any more.

    Raises:
        UserError: If it is one.
    """
    if not (folder / GRID).exists():
        return
    other, names = saved_grid(folder), {name for place in grid.places() for name in grid.names(place)}
    if lost := [name for place in other.places() for name in other.names(place) if name not in names]:
        what = f"{str(folder)!r} holds a sweep with other runs, such as {lost[0]!r}"
        raise UserError(f"{what}, and they would be in no table any more.", "Choose another $run.")


def cells_of(grid: Grid, rows: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """For every combination what its finished seeds have learned, and how many of them have failed."""
    results = {row["run"]: RunDirectory(folder / row["run"]).read_result() for row in rows if row["status"] == FINISHED}
    ceilings = {row["run"]: row["ceiling"] for row in rows}
    chances = {row["run"]: row["chance"] for row in rows}
    cells = []
    for place in grid.places():
        finished = [name for name in grid.names(place) if name in results]
        cell = grid.cell(place, {name: results[name] for name in finished}, folder)
        for column, values in (("ceiling", ceilings), ("chance", chances)):
            known = [values[name] for name in finished if values[name] is not None]
            cell[column] = sum(known) / len(known) if known else None
        cells.append({**cell, "failed": len(grid.names(place)) - len(finished)})
    return cells


def sweep_table(grid: Grid, cells: Sequence[Mapping[str, Any]]) -> str:
    """A line for each combination, as markdown."""
    return markdown_table(*sweep_lines(grid, cells))


def sweep_lines(
    grid: Grid, cells: Sequence[Mapping[str, Any]], *, lost: str = "failed"
) -> tuple[list[str], list[list[str]]]:
    """The names of the columns of a table, and a line for each combination.

    Args:
        grid: Of the sweep.
        cells: As `cells_of` makes them.
        lost: What is said of seeds that have no result: of a sweep that is done they have failed.
    """
    lines = []
    for cell in cells:
        seeds = f"{cell['seeds']}" + (f" ({cell['failed']} {lost})" if cell["failed"] else "")
        ceiling = "-" if cell["ceiling"] is None else f"{cell['ceiling']:.1%}"
        axes = ("-" if cell[axis] is None else str(cell[axis]) for axis in grid.axes)
        lines.append([*axes, seeds, ceiling, *result_cells(dict(cell))])
    return [*(axis.replace("_", " ") for axis in grid.axes), "seeds", "ceiling", *RESULT_COLUMNS], lines


def is_drawn(grid: Grid) -> bool:
    """Whether there is a figure of so many axes."""
    return 1 <= len(grid.axes) <= MAX_AXES_DRAWN


def _draw(grid: Grid, cells: Sequence[dict[str, Any]], configuration: Configuration, path: Path) -> None:
    if not is_drawn(grid):
        return

    from echo_torch.lab.grid_figures import draw_grid

    draw_grid(grid.axes, cells, path, title=title_of(grid, configuration))
    remove_other_forms(path)


def title_of(grid: Grid, configuration: Configuration) -> str:
    """What all runs have in common."""
    is_one = not {"vocabulary_size", "data"} & set(grid.axes)
    symbols = f"{configuration.vocabulary_size} symbols, " if is_one else ""
    return f"mode {configuration.mode}, {symbols}{grid.seeds_in_words}"


def status_of(folder: str | Path) -> dict[str, list[str]]:
    """The names of the runs of a sweep by how far they are: finished, running, failed, left."""
    folder = Path(folder)
    grid = saved_grid(folder)
    found: dict[str, list[str]] = {"finished": [], "running": [], "failed": [], "left": []}
    for place in grid.places():
        for name in grid.names(place):
            found[_status(RunDirectory(folder / name))].append(name)
    return found


def _status(run: RunDirectory) -> str:
    if run.result.exists():
        return "finished"
    if run.path.is_dir() and is_locked(run.path):
        return "running"
    return "failed" if run.failure.exists() else "left"
