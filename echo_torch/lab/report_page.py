"""Where the page of a directory goes, and whose page it is."""

from __future__ import annotations

import contextlib
from pathlib import Path

from echo_torch.errors import RuleError, UserError
from echo_torch.files import remove_unfinished, write_text
from echo_torch.lab.locks import locked
from echo_torch.lab.page import Page
from echo_torch.lab.rows import GRID
from echo_torch.lab.run_directory import PAGE, RunDirectory, cannot_use


def write_report(folder: str | Path) -> Path:
    """Write the page of a run or of a sweep into its directory: report.html, which needs no other file.

    It shows what was asked, the data path, curves and tables with intervals, the configuration and the command that
    does it again. It goes when the training goes on.

    Args:
        folder: The directory of a run, finished or not, or of a sweep.

    Returns:
        The page.

    Raises:
        RuleError: If it is the directory of neither.
        UserError: If a training works there, or what it holds is damaged; a sweep's page names a damaged run.
    """
    folder = Path(folder)
    is_run = (folder / "config.yaml").exists()
    if not is_run and not (folder / GRID).exists():
        rule, got = "$run must be the directory of a run or of a sweep", f"{str(folder)!r}, which is neither"
        raise RuleError("run", rule, got)
    path = folder / PAGE
    with contextlib.ExitStack() as stack:
        try:
            if not stack.enter_context(locked(folder)):
                raise UserError(f"A training works in {str(folder)!r}; wait for it.")
            remove_unfinished(path)  # what a killed process left
        except OSError as error:
            raise cannot_use(folder, error) from None
        write_text(path, _page(folder, is_run=is_run).document())
    return path


def _page(folder: Path, *, is_run: bool) -> Page:
    if is_run:
        from echo_torch.lab.page_run import run_page

        return run_page(RunDirectory(folder))
    from echo_torch.lab.page_sweep import sweep_page

    return sweep_page(folder)
