"""The page of a comparison: its arms, what they have learned, and which of their runs are missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration, program
from echo_torch.experiments.options import OPTIONS, is_own_model
from echo_torch.files import read_bytes
from echo_torch.lab.comparison import (
    ARMS,
    COMPARISON,
    compare,
    comparison_lines,
    comparison_runs,
    directories_of,
    names_of,
)
from echo_torch.lab.figures import draw_comparison, draw_reach_by_horizon
from echo_torch.lab.html import Html, paragraphs, table, tag
from echo_torch.lab.page import Page, command, flag, name_of, wrong
from echo_torch.lab.page_parts import versions_table
from echo_torch.lab.report import counted
from echo_torch.lab.rows import found_in
from echo_torch.lab.run_directory import RunDirectory

_MAX_BYTES = 2**24
_Results = Mapping[str, Mapping[str, Any]]


def compare_page(folder: Path) -> Page:
    """The page of a comparison, made of its runs.

    Raises:
        UserError: If what says which arms it has cannot be read.
    """
    arms, num_seeds = _arms_of(folder)
    network = _network_of(directories_of(arms, num_seeds, folder))
    runs = comparison_runs(arms, num_seeds, **network)
    results, lost = _read(folder, runs)
    whole = [arm for arm in arms if all(name in results for name in names_of(arm, num_seeds))]
    page = Page(f"Comparison {name_of(folder)}")
    page.add("What was asked", *_asked(arms, num_seeds, runs, lost))
    if whole:
        page.add("What came out", *_found(page, whole, num_seeds, results, folder))
    page.add("How to do it again", *_how(arms, num_seeds, network, results))
    return page


def _arms_of(folder: Path) -> tuple[list[str], int]:
    """The arms and the seeds of each, as the comparison has left them."""
    path = folder / COMPARISON
    try:
        rows = json.loads(read_bytes(path, _MAX_BYTES))
        arms, num_seeds = [row["arm"] for row in rows], int(rows[0]["seeds"])
        if all(arm in ARMS for arm in arms) and 1 <= num_seeds <= 10_000:
            return arms, num_seeds
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        pass
    raise UserError(f"{str(path)!r} was altered: it names no arms.", "Compare again, into the same directory.")


def _network_of(runs: Mapping[str, Sequence[RunDirectory]]) -> dict[str, Any]:
    """The network that was given for all arms, by the first run that says it; nothing where each arm has its own."""
    for arm, run in ((arm, run) for arm, directories in runs.items() for run in directories):
        with contextlib.suppress(UserError):  # what is missing or damaged is named with the others
            saved = run.read_saved()[0]
            own = {"model_options": saved.model_options} if is_own_model(saved.model) else {}
            return {} if saved.model == ARMS[arm].configuration(1).model else {"model": saved.model, **own}
    return {}


def _read(
    folder: Path, runs: Mapping[str, Configuration]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str, str]]]:
    """The results by name, and of each run without one: its name, what it is, and why."""
    results, lost = {}, []
    for name, configuration in runs.items():
        result, status, reason = found_in(RunDirectory(folder / name), configuration)
        if result is None:
            lost.append((name, status, str(reason)))
        else:
            results[name] = result
    return results, lost


def _asked(
    arms: Sequence[str], num_seeds: int, runs: Mapping[str, Configuration], lost: Sequence[tuple[str, str, str]]
) -> Iterator[Html]:
    yield tag("p", "Which of reach, horizon and carry does a training lack?", class_="lead")
    seeds = counted(num_seeds, "seeds")
    yield paragraphs([f"{counted(len(arms), 'arms')}, {seeds} each: {counted(len(runs), 'runs')}."])
    if lost:
        yield wrong(f"{len(lost)} of {len(runs)} runs are not finished; no table and no figure holds their arms.")
        yield table(["run", "what it is", "why"], lost, caption="Runs without a result")


def _found(page: Page, arms: Sequence[str], num_seeds: int, results: Any, folder: Path) -> Iterator[Html]:
    rows = compare(arms, num_seeds, results, folder)
    names, lines = comparison_lines(rows)
    yield table(names, lines, caption="Reach, horizon and accuracy on fresh symbols, with 95 % intervals")
    text = "; ".join(f"{row['label']}: {row['accuracy']:.1%}, ceiling {row['ceiling']:.1%}" for row in rows)
    title = "Accuracy by reach and horizon: was the answer read, and does a gradient get there?"
    yield page.figures.add(partial(draw_reach_by_horizon, rows), title, text)
    runs = directories_of(arms, num_seeds, folder)
    yield page.figures.add(partial(draw_comparison, rows, runs), "Accuracy in training, with ceiling and chance", text)


def _how(arms: Sequence[str], num_seeds: int, network: Mapping[str, Any], results: _Results) -> Iterator[Html]:
    words = [word for name, value in network.items() for word in OPTIONS[name].words(value)]
    yield paragraphs(["This trains all of it anew:"])
    yield command(program("compare", flag("seeds"), str(num_seeds), *words, flag("arms"), *arms))
    yield versions_table([result["versions"] for result in results.values()])
