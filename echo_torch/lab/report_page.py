"""Where the page of a directory goes, and whose page it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from echo_torch.errors import RuleError, UserError
from echo_torch.files import remove_unfinished, write_text
from echo_torch.lab.comparison import COMPARISON
from echo_torch.lab.locks import locked
from echo_torch.lab.page import Page
from echo_torch.lab.page_watch import read_watched, watched_parts
from echo_torch.lab.rows import GRID
from echo_torch.lab.run_directory import PAGE, RunDirectory, cannot_use


def write_report(folder: str | Path, *, watched: str | Path | None = None) -> Path:
    """Write the page of a run or of a sweep into its directory: report.html, which needs no other file.

    It shows what was asked, the data path, curves and tables with intervals, the configuration and the command that
    does it again. It goes when the training goes on.

    Args:
        folder: The directory of a run, finished or not, of a sweep, a map, lags or a comparison.
        watched: The findings of a watch of the same training, as the command watch writes them; they are told too.

    Returns:
        The page.

    Raises:
        RuleError: If it is the directory of neither, or `watched` holds no findings.
        UserError: If a training works there, or what it holds is damaged; a sweep's page names a damaged run.
    """
    folder = Path(folder)
    make = _maker_of(folder)
    if make is None:
        rule, got = "$run must be the directory of a run or of a sweep", f"{str(folder)!r}, which is neither"
        raise RuleError("run", rule, got)
    path, seen = folder / PAGE, None if watched is None else read_watched(watched)
    with contextlib.ExitStack() as stack:
        try:
            if not stack.enter_context(locked(folder)):
                raise UserError(f"A training works in {str(folder)!r}; wait for it.")
            remove_unfinished(path)  # what a killed process left
        except OSError as error:
            raise cannot_use(folder, error) from None
        page = make()
        if seen is not None:
            page.add("What the watch found", *watched_parts(seen))
            page.parts.insert(-1, page.parts.pop())  # how to do it again is the last
        write_text(path, page.document())
    return path


def _maker_of(folder: Path) -> Callable[[], Page] | None:
    """What makes its page, by the file that says what it is; None: no such file is there."""
    if (run := RunDirectory(folder)).config.exists():
        from echo_torch.lab.page_run import run_page

        return partial(run_page, run)
    if (folder / GRID).exists():
        from echo_torch.lab.page_sweep import sweep_page

        return partial(sweep_page, folder)
    if (folder / COMPARISON).exists():
        from echo_torch.lab.page_compare import compare_page

        return partial(compare_page, folder)
    return None
