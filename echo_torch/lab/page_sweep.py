"""The page of a sweep: its runs over the grid, what they have learned, and which of them are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from echo_torch.experiments.catalogue import EXPERIMENTS
from echo_torch.experiments.configuration import Configuration, describe, program
from echo_torch.experiments.options import OPTIONS
from echo_torch.lab.figures import draw_comparison
from echo_torch.lab.grid_figures import draw_grid
from echo_torch.lab.grids import Grid, value_in_words
from echo_torch.lab.html import Html, paragraphs, table, tag
from echo_torch.lab.page import Page, command, flag, name_of, wrong
from echo_torch.lab.page_parts import audit_parts, configuration_table, reach_parts, versions_table
from echo_torch.lab.plan import Plan
from echo_torch.lab.report import chance_in_words, counted
from echo_torch.lab.rows import FINISHED, missing_in_words, rows_of, saved_grid
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.sweep import cells_of, is_drawn, sweep_lines, title_of
from echo_torch.lab.tables import FEW_SEEDS

_MAX_PANELS = 12
_Rows = Sequence[Mapping[str, Any]]


def sweep_page(folder: Path) -> Page:
    """The page of a sweep, whatever has become of its runs.

    Raises:
        UserError: If its grid or a user's own data cannot be read.
    """
    grid = saved_grid(folder)
    runs = grid.runs()
    rows = rows_of(grid, runs, folder)
    cells = cells_of(grid, rows, folder)
    first = next(iter(runs.values()))
    page = Page(f"Sweep {name_of(folder)}")
    page.add("What was asked", *_asked(grid, first, rows))
    if any(row["status"] == FINISHED for row in rows):
        page.add("What came out", *_found(page, grid, cells, rows, first))
        page.add("The trainings", *_curves(page, grid, cells, rows, folder))
        page.add("What the audit found", *audit_parts(_gaps(rows, folder)))
    page.add("What the data path allows", *_path(page, grid, rows, first))
    page.add("How to do it again", *_how(grid, first, rows))
    return page


def _asked(grid: Grid, first: Configuration, rows: _Rows) -> Iterator[Html]:
    yield tag("p", f"{grid.mode}: {EXPERIMENTS[grid.mode].summary}.", class_="lead")
    combinations, runs = counted(len(grid.places()), "combinations"), counted(len(rows), "runs")
    yield paragraphs([
        f"{combinations} of options, {grid.seeds_in_words} each: {runs}.",
        f"The first one is asked: {describe(first)}.",
    ])  # fmt: skip
    if grid.axes:
        axes = [[name.replace("_", " "), ", ".join(map(value_in_words, values))] for name, values in grid.axes.items()]
        yield table(["option", "values"], axes, caption="The grid")
    if missing := missing_in_words(rows):
        yield wrong(missing)
        lost = [[row["run"], row["status"], row["reason"]] for row in rows if row["status"] != FINISHED]
        yield table(["run", "what it is", "why"], lost, caption="Runs that no table and no figure holds")


def _found(
    page: Page, grid: Grid, cells: Sequence[dict[str, Any]], rows: _Rows, first: Configuration
) -> Iterator[Html]:
    names, lines = sweep_lines(grid, cells, lost="not finished")
    chances = {row["chance"] for row in rows if row["chance"] is not None}
    few = (
        f"; fewer than {FEW_SEEDS} seeds are shown each by itself"
        if any(cell["seeds"] < FEW_SEEDS for cell in cells)
        else ""
    )
    if is_drawn(grid):
        title = title_of(grid, first)
        draw = partial(draw_grid, grid.axes, cells, title=title)
        yield page.figures.add(draw, f"Accuracy on fresh symbols: {title}", _best_in_words(grid, cells))
    else:
        yield paragraphs(["There is a figure of grids of one to three axes; all numbers are in the table."])
    yield table(names, lines, caption=f"Accuracy on fresh symbols, with 95 % intervals{few}")
    yield paragraphs([f"Chance is {', '.join(map(chance_in_words, sorted(chances)))}."])


def _best_in_words(grid: Grid, cells: Sequence[Mapping[str, Any]]) -> str:
    known = [cell for cell in cells if cell["accuracy"] is not None]
    if not known:
        return "Nothing was asked."
    best = max(known, key=lambda cell: float(cell["accuracy"]))
    where = ", ".join(f"{name.replace('_', ' ')} {value_in_words(best[name])}" for name in grid.axes)
    return f"The best mean accuracy, {best['accuracy']:.1%}, is that of {where}."


def _curves(page: Page, grid: Grid, cells: Sequence[dict[str, Any]], rows: _Rows, folder: Path) -> Iterator[Html]:
    """Curves of every combination, a panel each."""
    finished = {row["run"] for row in rows if row["status"] == FINISHED}
    panels: list[dict[str, Any]] = []
    runs: dict[str, list[RunDirectory]] = {}
    for place, cell in zip(grid.places(), cells, strict=True):
        names = [name for name in grid.names(place) if name in finished]
        if names and len(panels) < _MAX_PANELS:
            label = "\n".join(f"{name.replace('_', ' ')} {value_in_words(value)}" for name, value in place.items())
            panels.append({"arm": names[0], "label": label, "ceiling": cell["ceiling"], "chance": cell["chance"]})
            runs[names[0]] = [RunDirectory(folder / name) for name in names]
    number = sum(1 for cell in cells if cell["seeds"])
    some = "" if number == len(panels) else f", of the first {len(panels)} of {number:,} combinations"
    title = f"Accuracy in training, with ceiling and chance{some}"
    text = f"{len(panels)} panels, a line for each seed; the table above has what they came to on fresh symbols."
    yield page.figures.add(partial(draw_comparison, panels, runs), title, text)


def _gaps(rows: _Rows, folder: Path) -> dict[str, int]:
    """How often each gap occurred in all finished trainings together."""
    total: Counter[str] = Counter()
    for row in rows:
        if row["status"] == FINISHED:
            total.update(RunDirectory(folder / row["run"]).read_result()["gaps"])
    return dict(total)


def _path(page: Page, grid: Grid, rows: _Rows, first: Configuration) -> Iterator[Html]:
    """Reach and horizon of every combination, and the picture of the first one."""
    by_run = {row["run"]: row for row in rows}
    lines = []
    for place in grid.places():
        row = by_run[grid.names(place)[0]]
        gap = "several" if row["gap"] is None else str(row["gap"])
        shares = ("-" if row[name] is None else f"{row[name]:.1%}" for name in ("reachable_share", "in_horizon_share"))
        lines.append([*map(value_in_words, place.values()), gap, *shares])
    names = [*(name.replace("_", " ") for name in grid.axes), "gap", "answer read before", "within the same chunk"]
    yield table(names, lines, caption="What a row has read when it is asked, before any training")
    if len(lines) > 1:
        yield paragraphs(["Of the first combination:"])
    yield from reach_parts(page, Plan(first))


def _how(grid: Grid, first: Configuration, rows: _Rows) -> Iterator[Html]:
    yield paragraphs(["This trains all of it anew:"])
    yield command(sweep_command(grid))
    yield configuration_table(first, "The configuration of the first run")
    yield versions_table(rows)


def sweep_command(grid: Grid) -> str:
    """The command that trains a grid.

    >>> sweep_command(Grid("lag", {"lag": [1, 2]}, 3, {"updates": 300}))
    'python -m echo_torch sweep --mode lag --grid lag=1,2 --seeds 3 --updates 300'
    """
    words = ["sweep", flag("mode"), grid.mode]
    if grid.axes:
        words.append(flag("grid"))
    for name, values in grid.axes.items():
        words.append(f"{name}={(';' if OPTIONS[name].canonical else ',').join(map(_as_word, values))}")
    words += [flag("seeds"), str(grid.num_seeds)]
    words += [word for name, value in grid.options.items() for word in OPTIONS[name].words(value)]
    return program(*words)


def _as_word(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
