"""The commands evaluate, predict and stream: a trained network at work."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from echo_torch.cli.flags import add_run, shown, whole_number
from echo_torch.cli.heavy import heavy_imports
from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.configuration import Configuration
from echo_torch.lab.run_directory import RunDirectory


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The flags of evaluate."""
    add_run(parser)
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.set_defaults(command=_evaluate)


def add_predict(parser: argparse.ArgumentParser) -> None:
    """The flags of predict."""
    add_run(parser)
    parser.add_argument("symbols", metavar="N", nargs="*", help="the numbers, in the order of time")
    parser.add_argument("--file", metavar="FILE", help="take the numbers from a text or CSV file")
    parser.add_argument("--column", metavar="NAME", help="the column of a CSV file")
    parser.add_argument(
        "--state", metavar="{carried,fresh}", help="hand the state on, or begin empty (default: as the run was trained)"
    )
    parser.add_argument("--top", metavar="K", default="1", help="show the K most likely answers (default: 1)")
    parser.add_argument("--explain", action="store_true", help="show what the last answer depends on")
    parser.add_argument("--ahead", action="store_true", help="measure whether the run can tell the next random number")
    parser.set_defaults(command=_predict, words={"symbols": "the input", "number": "every number of the input"})


def add_stream(parser: argparse.ArgumentParser) -> None:
    """The flags of stream."""
    add_run(parser)
    parser.add_argument("--lanes", metavar="N", default="1", help="numbers per line, each its own stream (default: 1)")
    parser.set_defaults(command=_stream)


def _evaluate(parsed: argparse.Namespace) -> None:
    run, configuration = _open(parsed)

    with heavy_imports():
        from echo_torch.lab import console, finished, report
        from echo_torch.lab.plan import Plan

    plan = Plan(configuration)
    with console.warnings_as_lines():
        model = finished.load_weights(run, plan, allow_changed_model=parsed.allow_changed_model)
    progress = shown(parsed)
    result = finished.evaluation_result(plan, model, progress=progress)
    for line in report.result_lines(result, *plan.example(model, progress=progress), always_by_chunk=True):
        print(line)


def _open(parsed: argparse.Namespace) -> tuple[RunDirectory, Configuration]:
    """The run, and its configuration: a directory that holds none is refused before torch is loaded."""
    run = RunDirectory(Path(parsed.run))
    return run, run.read_config(parsed.model)


def _own_model(parsed: argparse.Namespace) -> dict[str, Any]:
    return {"model": parsed.model, "allow_changed_model": parsed.allow_changed_model}


def _numbers_to_predict(parsed: argparse.Namespace) -> list[int]:
    if parsed.column is not None and parsed.file is None:
        raise RuleError("column", "$column needs $file: it names a column of a CSV file")
    if parsed.file is None:
        return [whole_number(text, "number", low=0, high=2**31 - 1) for text in parsed.symbols]
    if parsed.symbols:
        raise RuleError("file", "Numbers come from $file or from the command line, not from both")
    from echo_torch.data.own_symbols import read_rows

    return [row.symbol for row in read_rows(parsed.file, column=parsed.column)]


def _predict(parsed: argparse.Namespace) -> None:
    _open(parsed)
    symbols, top_k = _numbers_to_predict(parsed), whole_number(parsed.top, "top")

    with heavy_imports():
        from echo_torch.inference.predictor import EchoPredictor, guess_ahead
        from echo_torch.lab import console, report

    with console.warnings_as_lines():
        predictor = EchoPredictor.load(parsed.run, state=parsed.state, **_own_model(parsed))
    # What can be refused is refused before anything is printed.
    answers = predictor.answers(symbols, top_k=top_k) if symbols or not parsed.ahead else []
    if parsed.ahead:
        right, asked = guess_ahead(predictor.configuration, predictor.model, progress=shown(parsed))
        print(report.ahead_line(right, asked, predictor.configuration.vocabulary_size))
        if not symbols:
            return
    shares = predictor.explain(symbols, progress=shown(parsed)) if parsed.explain else []
    print(report.state_line(predictor.configuration, len(symbols), is_carried=predictor.is_carried))
    for answer in answers:
        print(report.answer_line(answer.position, answer.of, symbols, answer.symbol, answer.top))
    for line in report.explanation_lines(symbols, shares):
        print(line)


def _stream(parsed: argparse.Namespace) -> None:
    _open(parsed)
    num_lanes = whole_number(parsed.lanes, "lanes")

    with heavy_imports():
        import torch

        from echo_torch.inference.online import OnlineEcho, answer_lines, read_lines
        from echo_torch.lab import console

    torch.set_num_threads(1)  # faster than two at these sizes
    with console.warnings_as_lines():
        echo = OnlineEcho.load(parsed.run, num_lanes, **_own_model(parsed))
    if sys.stdin is None:
        raise UserError("The command stream reads standard input, which is closed.")
    # Bytes that are no text are somebody's bad line, not the end of the stream; the mark of UTF-8 is no part of a line.
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # type: ignore[union-attr]  # it is a TextIOWrapper
    answer_lines(
        echo,
        read_lines(sys.stdin),
        say=lambda line: print(line, flush=True),
        complain=lambda line: print(line, file=sys.stderr, flush=True),
    )
