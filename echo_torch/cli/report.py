"""The command report: the page of a run or of a sweep."""

from __future__ import annotations

import argparse

from echo_torch.cli.heavy import heavy_imports


def add_report(parser: argparse.ArgumentParser) -> None:
    """The flags of report."""
    parser.add_argument(
        "run", metavar="DIR", help="the directory of a run, finished or not, of a sweep, a map, lags or a comparison"
    )
    parser.add_argument("--watched", metavar="FILE", help="tell too what watch has found, as its --json wrote it")
    parser.set_defaults(command=_report, words={"run": "DIR", "json": "--json"})


def _report(parsed: argparse.Namespace) -> None:
    with heavy_imports():
        from echo_torch.lab.report_page import write_report

    print(f"page: {write_report(parsed.run, watched=parsed.watched)}")
