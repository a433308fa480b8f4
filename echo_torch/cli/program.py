"""The command line: flags made from the options, sentences for errors."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from echo_torch.errors import Interrupted, UserError
from echo_torch.experiments.configuration import (
    EXPERIMENTS,
    OPTIONS,
    Configuration,
    Option,
    check_value,
    configure,
    count_parameters,
    describe,
    in_flags,
    memory_length,
    suggest,
)
from echo_torch.lab.processes import raise_at_sigterm
from echo_torch.lab.run_directory import RunDirectory, check_new_file
from echo_torch.lab.yaml_files import read_yaml, to_yaml
from echo_torch.ranks import is_first_rank, launched_ranks

EXIT_BAD_INPUT = 2
_LONG_WORD = re.compile(r"\S{300,}")  # longer than any path; nobody reads the rest
EXIT_SIGNAL = 128  # and the signal's number, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after the program's name; None: those of this process.

    Returns:
        The exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        raise_at_sigterm()
        parsed = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], None] = parsed.command
        command(parsed)
        if sys.stdout is not None:  # it is, where it was closed before the start
            sys.stdout.flush()
    except UserError as error:
        if is_first_rank():  # one of several processes speaks for all
            _complain(_LONG_WORD.sub(lambda word: f"{word[0][:40]}...", in_flags(str(error))))
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as error:
        number, message = (error.number, error.message) if isinstance(error, Interrupted) else (signal.SIGINT, "")
        if is_first_rank():
            _complain(message or "Interrupted.")
        return EXIT_SIGNAL + number
    except BrokenPipeError:
        _drop_output()  # the reader (head, less) has gone: that is no error
    except OSError as error:
        if error.filename is None:  # that of a file has a name
            _drop_output()
        what = "Standard output" if error.filename is None else repr(error.filename)
        _complain(f"{what} cannot be used: {error.strerror or error}.")
        return EXIT_BAD_INPUT
    return 0


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program: `main`, and the end of its process, which no Ctrl-C disturbs any more.

    Args:
        arguments: As of `main`.
    """
    code = main(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(code)


def _complain(sentence: str) -> None:
    with contextlib.suppress(OSError):  # there may be nobody to hear it
        print(sentence, file=sys.stderr, flush=True)


def _drop_output() -> None:
    # The dummy keeps Python from complaining at exit.
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message[0].upper() + message[1:].rstrip(".") + ".")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            raise UserError(f"There is no flag or argument {word!r} here{suggest(word, self._known_flags(parsed))}.")
        return parsed

    def _known_flags(self, parsed: argparse.Namespace) -> list[str]:
        flags: list[str] = parsed.flags
        return flags


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="echo_torch",
        description="Recurrent networks with carried state, on the echo task.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, help_line, add in (
        ("train", "train one experiment", _add_train),
        ("reach", "say before any training what the data path of an experiment allows", _add_reach),
        ("compare", "train the arms that keep reach, horizon and carry apart, over several seeds", _add_compare),
        ("map", "train aligned lanes over a grid of lags, chunk lengths and learning rates", _add_map),
        ("lags", "train mode lag over a grid of lags and hidden sizes, the state carried and reset", _add_lags),
        ("evaluate", "repeat the evaluation of a finished run", _add_evaluate),
        ("predict", "answer your own numbers with a finished run", _add_predict),
        (
            "stream",
            "read numbers from standard input and answer each at once, windows from an empty state",
            _add_stream,
        ),
    ):
        sub = commands.add_parser(
            name,
            help=help_line,
            description=help_line.capitalize() + ".",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
        )
        add(sub)
        sub.set_defaults(flags=[flag for action in sub._actions for flag in action.option_strings])
    return parser


def _add_options(parser: argparse.ArgumentParser) -> dict[str, argparse._ArgumentGroup]:
    """The flags of a configuration, made from the options, in their groups."""
    modes = parser.add_argument_group("experiment")
    modes.add_argument(
        "--mode",
        metavar="MODE",
        default=argparse.SUPPRESS,
        help="; ".join(f"{e.name}: {e.summary}" for e in EXPERIMENTS.values()) + " (default: lag)",
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS.values():
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        if option.kind is bool:
            groups[option.group].add_argument(
                option.flag, action="store_true", default=argparse.SUPPRESS, help=option.help
            )
        else:
            metavar = (
                "{" + ",".join(option.choices) + "}"
                if option.choices
                else {int: "N", float: "X", str: "NAME"}[option.kind]
            )
            groups[option.group].add_argument(option.flag, metavar=metavar, default=argparse.SUPPRESS, help=option.help)
    modes.add_argument("--config", metavar="FILE", help="take options from a YAML file; flags go before it")
    return groups


def _add_train(parser: argparse.ArgumentParser) -> None:
    output = _add_options(parser)["output"]
    output.add_argument("--run-dir", metavar="DIR", help="where the files go (default: a new one in runs/)")
    output.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="continue the run in --run-dir from its latest checkpoint, or begin it; or from this checkpoint",
    )
    output.add_argument("--print-config", action="store_true", help="print the configuration and stop")
    output.add_argument("--no-progress", action="store_true", help="no progress bar")
    output.add_argument("--quiet", action="store_true", help="no output but errors")
    parser.set_defaults(command=_train)


def _add_reach(parser: argparse.ArgumentParser) -> None:
    output = _add_options(parser)["output"]
    output.add_argument("--json", action="store_true", help="print the numbers as JSON")
    output.add_argument("--plot", metavar="FILE", help="draw which step each row reads, and what it is asked")
    parser.set_defaults(command=_reach)


def _add_sweep(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--jobs", metavar="N", default=None, help="runs at a time (default: one for each core)")
    parser.add_argument("--run-dir", metavar="DIR", default=folder, help=f"where the runs are kept (default: {folder})")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", metavar="N", default="5", help="seeds 1..N for every arm (default: 5)")
    parser.add_argument(
        "--arms", metavar="ARM", nargs="+", default=None, help="only these arms (default: the eleven of the comparison)"
    )
    _add_sweep(parser, "runs/compare")
    parser.set_defaults(command=_compare)


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lags", metavar="N", nargs="*", default=["0", "1", "2", "3", "5"], help="rows of the grid")
    parser.add_argument(
        "--chunks", metavar="N", nargs="*", default=["1", "2", "3", "4", "5", "6", "10"], help="its columns"
    )
    parser.add_argument(
        "--learning-rates",
        metavar="X",
        nargs="+",
        default=["0.001", "0.003", "0.01"],
        help="a grid for each (default: 0.001 0.003 0.01)",
    )
    parser.add_argument("--seeds", metavar="N", default="1", help="seeds 1..N for every cell (default: 1)")
    for name, default in (("vocabulary_size", "10"), ("hidden_size", "50"), ("updates", "4000")):
        option = OPTIONS[name]
        parser.add_argument(option.flag, metavar="N", default=default, help=f"{option.help} (default: {default})")
    _add_sweep(parser, "runs/map")
    parser.set_defaults(command=_map)


def _add_lags(parser: argparse.ArgumentParser) -> None:
    lags, sizes = ["1", "2", "3", "4"], ["25", "50", "100"]
    parser.add_argument("--lags", metavar="N", nargs="+", default=lags, help="lags (default: 1 2 3 4)")
    parser.add_argument("--hidden-sizes", metavar="N", nargs="+", default=sizes, help="widths (default: 25 50 100)")
    parser.add_argument(
        "--carry", metavar="WORD", nargs="+", default=["keep", "reset"], help="the state carried, reset (default: both)"
    )
    parser.add_argument("--seeds", metavar="N", default="3", help="seeds 1..N for every cell (default: 3)")
    parser.add_argument("--sequences", metavar="N", default="2000", help="fresh sequences per run (default: 2000)")
    _add_sweep(parser, "runs/lags")
    parser.set_defaults(command=_lags)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="DIR", required=True, help="the run directory")
    parser.set_defaults(command=_evaluate)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="DIR", required=True, help="the run directory")
    parser.add_argument("symbols", metavar="N", nargs="*", help="the numbers, in the order of time")
    parser.add_argument("--file", metavar="FILE", help="take the numbers from a text or CSV file")
    parser.add_argument("--column", metavar="NAME", help="the column of a CSV file")
    parser.add_argument(
        "--state", metavar="{carried,fresh}", help="hand the state on, or begin empty (default: as the run was trained)"
    )
    parser.add_argument("--top", metavar="K", default="1", help="show the K most likely answers (default: 1)")
    parser.add_argument("--explain", action="store_true", help="show what the last answer depends on")
    parser.add_argument("--ahead", action="store_true", help="measure whether the run can tell the next random number")
    parser.set_defaults(command=_predict)


def _add_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="DIR", required=True, help="the run directory")
    parser.add_argument("--lanes", metavar="N", default="1", help="numbers per line, each its own stream (default: 1)")
    parser.set_defaults(command=_stream)


def _configuration(parsed: argparse.Namespace) -> Configuration:
    values = read_yaml(parsed.config) if parsed.config is not None else {}
    flags = {name: getattr(parsed, name) for name in ("mode", *OPTIONS) if hasattr(parsed, name)}
    # Two ways to say how long: a flag replaces whichever the file has.
    for one, other in (("sequences", "updates"), ("updates", "sequences")):
        if one in flags and other not in flags:
            values.pop(other, None)
    values.update(flags)
    mode = values.pop("mode", "lag")
    if (num_ranks := launched_ranks()) is not None:
        values.setdefault("devices", num_ranks)
    if isinstance(values.get("data"), str) and values.get("vocabulary_size") is None:
        from echo_torch.data.own_symbols import open_series

        data = open_series(values["data"], column=values.get("column"), series=values.get("series"))
        values["vocabulary_size"] = max(2, data.largest + 1)
    try:
        return configure(mode, **values)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def _train(parsed: argparse.Namespace) -> None:
    configuration = _configuration(parsed)
    if parsed.print_config:
        print(to_yaml(configuration), end="")
        return
    run = _run_directory(parsed, configuration)
    is_quiet = parsed.quiet or not is_first_rank()
    say: Callable[[str], None] = (lambda line: None) if is_quiet else (lambda line: print(line, flush=True))
    say(f"asked: {describe(configuration)}")
    say(f"chance: {1 / configuration.vocabulary_size:.2%} (1 of {configuration.vocabulary_size} symbols)")
    say(f"parameters: {count_parameters(configuration):,} (hidden size {configuration.hidden_size})")

    # Imported only now: torch and Lightning take seconds, the lines above do not wait for them.
    from echo_torch.diagnosis.data_path import explain, reach_lines
    from echo_torch.lab import console, figures, finished, report, runner
    from echo_torch.lab import plan as builders

    found = builders.build_reach(configuration)
    for line in [*reach_lines(found), explain(found, **_of_network(configuration))]:
        say(line)
    progress, audit = not is_quiet and _draws(parsed), "count" if is_quiet else "warn"
    with console.warnings_as_lines():
        result = runner.train(configuration, run, audit=audit, progress=progress, resume=parsed.resume, say=say)
    if not is_first_rank():
        return
    figures.draw_curve(run, configuration)
    _, model = finished.load_model(run)
    for line in report.result_lines(result, *builders.example(configuration, model)):
        say(line)
    for line in report.conclusion_lines(configuration, found, result, run.read_metrics()):
        say(line)
    say(f"{result['updates']:,} updates in {result['seconds']:.1f} s; files: {run.path}")


def _of_network(configuration: Configuration) -> dict[str, Any]:
    """What `explain` cannot know from the data path alone."""
    return {"memory_length": memory_length(configuration), "is_carried": configuration.carry == "keep"}


def _run_directory(parsed: argparse.Namespace, configuration: Configuration) -> RunDirectory:
    if parsed.resume is not None:
        if parsed.run_dir is None:
            raise UserError("--resume needs --run-dir, the directory of the run that is to go on.")
        return RunDirectory(Path(parsed.run_dir))
    if not is_first_rank():  # the first one chooses and writes
        return RunDirectory(Path(parsed.run_dir or "runs"))
    return RunDirectory.new(parsed.run_dir, f"{configuration.mode}-seed{configuration.seed}")


def _reach(parsed: argparse.Namespace) -> None:
    configuration = _configuration(parsed)
    if parsed.plot is not None:
        check_new_file(parsed.plot, "--plot")

    # Not the runner: it would bring Lightning, which this need not wait for.
    from echo_torch.diagnosis.data_path import explain, reach_lines
    from echo_torch.lab.plan import build_reach, first_chunks

    found = build_reach(configuration)
    if parsed.json:
        print(json.dumps(found.to_dict()))
    else:
        print(f"asked: {describe(configuration)}")
        print("\n".join(reach_lines(found)))
        print(explain(found, **_of_network(configuration)))
    if parsed.plot is not None:
        from echo_torch.lab import figures

        title = f"{configuration.mode}: at step t the row is asked for the symbol of step t - {configuration.lag}"
        figures.draw_reach(first_chunks(configuration), configuration.lag, parsed.plot, title=title)


def _whole(text: str, flag: str, low: int = 1, high: int = 10_000) -> int:
    option = Option(flag, int, "", "", low, high)
    try:
        return int(check_value(option, text))  # type: ignore[arg-type]  # a whole number, as asked
    except (TypeError, ValueError) as error:
        raise UserError(str(error).replace(f"`{flag}`", f"--{flag}")) from None


def _draws(parsed: argparse.Namespace) -> bool:
    """Whether a progress bar is wanted and there is somebody to see it."""
    return not parsed.no_progress and _is_watched()


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _jobs(parsed: argparse.Namespace) -> int | None:
    return None if parsed.jobs is None else _whole(parsed.jobs, "jobs", high=1024)


def _compare(parsed: argparse.Namespace) -> None:
    seeds, jobs, folder = _whole(parsed.seeds, "seeds"), _jobs(parsed), Path(parsed.run_dir)

    from echo_torch.lab import comparison, sweep, tables

    arms = list(dict.fromkeys(parsed.arms or comparison.DEFAULT_ARMS))
    for arm in arms:
        if arm not in comparison.ARMS:
            names = ", ".join(comparison.ARMS)
            raise UserError(f"--arms must be out of {names}. Got {arm!r}{suggest(arm, comparison.ARMS)}.")
    runs = comparison.comparison_runs(arms, seeds)
    results = sweep.run_all(runs, folder, num_jobs=jobs, progress=_draws(parsed))
    rows = comparison.compare(arms, seeds, results, folder)
    table = comparison.comparison_table(rows)
    tables.write_table(folder, "comparison", rows, table)

    from echo_torch.lab import figures

    by_arm = {arm: [RunDirectory(folder / f"{arm}-seed{seed}") for seed in range(1, seeds + 1)] for arm in arms}
    figures.draw_comparison(rows, by_arm, folder / "curves.png")
    figures.draw_reach_by_horizon(rows, folder / "reach_by_horizon.png")
    print(table)
    print(f"{len(runs)} runs, table and figures: {folder}")


def _map(parsed: argparse.Namespace) -> None:
    if not parsed.lags or not parsed.chunks:
        raise UserError("--lags and --chunks must each name a number, or the grid is empty. Got an empty grid.")
    lags = sorted({_whole(text, "lags", low=0) for text in parsed.lags})
    chunks = sorted({_whole(text, "chunks") for text in parsed.chunks})
    rates = sorted(_values(parsed.learning_rates, "learning_rate", "--learning-rates"))
    seeds, jobs, folder = _whole(parsed.seeds, "seeds"), _jobs(parsed), Path(parsed.run_dir)
    names = ("vocabulary_size", "hidden_size", "updates")
    options = {name: getattr(parsed, name) for name in names}

    from echo_torch.lab import grids, sweep, tables

    axes = {"lag": lags, "chunk": chunks, "learning_rate": rates}
    grid = grids.Grid("aligned", axes, seeds, {**options, "lanes": 32})
    runs = _runs_of_grid(grid)
    cells = grid.cells(sweep.run_all(runs, folder, num_jobs=jobs, progress=_draws(parsed)), folder)
    table = grids.map_table(grid, cells)
    tables.write_table(folder, "map", cells, table)

    from echo_torch.lab import figures

    title = "aligned lanes, {vocabulary_size} symbols, hidden size {hidden_size}, {updates} updates".format(**options)
    title += f", {seeds} seed{'s' * (seeds > 1)}"
    figures.draw_map(grid.axes, cells, folder / "map.png", title=title)
    figures.draw_map_seeds(grid.axes, cells, folder / "map_seeds.png", title=title)
    print(table)
    print(f"{len(runs)} runs, table and figures: {folder}")


def _lags(parsed: argparse.Namespace) -> None:
    lags = sorted({_whole(text, "lags", low=0) for text in parsed.lags})
    sizes = sorted({_whole(text, "hidden-sizes") for text in parsed.hidden_sizes})
    carries = sorted(_values(parsed.carry, "carry", "--carry"))
    seeds, jobs, folder = _whole(parsed.seeds, "seeds"), _jobs(parsed), Path(parsed.run_dir)

    from echo_torch.lab import grids, sweep, tables

    axes = {"lag": lags, "hidden_size": sizes, "carry": carries}
    grid = grids.Grid("lag", axes, seeds, {"sequences": parsed.sequences})
    runs = _runs_of_grid(grid)
    cells = grid.cells(sweep.run_all(runs, folder, num_jobs=jobs, progress=_draws(parsed)), folder)
    table = grids.lags_table(cells)
    tables.write_table(folder, "lags", cells, table)

    from echo_torch.lab import figures

    title = f"mode lag, {parsed.sequences} sequences, {seeds} seed{'s' * (seeds > 1)}"
    figures.draw_lags(grid.axes, cells, folder / "lags.png", title=title)
    print(table)
    print(f"{len(runs)} runs, table and figure: {folder}")


def _values(texts: Sequence[str], name: str, flag: str) -> set[Any]:
    """Different values of one option, from a flag that takes several."""
    try:
        return {check_value(OPTIONS[name], text) for text in texts}
    except (TypeError, ValueError) as error:
        raise UserError(str(error).replace(f"`{name}`", flag)) from None


def _runs_of_grid(grid: Any) -> dict[str, Configuration]:
    try:
        runs: dict[str, Configuration] = grid.runs()
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    return runs


def _evaluate(parsed: argparse.Namespace) -> None:
    run = RunDirectory(Path(parsed.run))
    run.read_config()  # refuse a directory that holds no run before torch is loaded

    from echo_torch.lab import finished, report
    from echo_torch.lab import plan as builders

    configuration, model = finished.load_model(run)
    result = finished.evaluation_result(configuration, model)
    for line in report.result_lines(result, *builders.example(configuration, model), always_by_chunk=True):
        print(line)


def _numbers_to_predict(parsed: argparse.Namespace) -> list[int]:
    if parsed.column is not None and parsed.file is None:
        raise UserError("--column needs --file: it names a column of a CSV file.")
    if parsed.file is None:
        return [_symbol(text) for text in parsed.symbols]
    if parsed.symbols:
        raise UserError("Numbers come from --file or from the command line, not from both.")
    from echo_torch.data.own_symbols import read_rows

    return [row.symbol for row in read_rows(parsed.file, column=parsed.column)]


def _symbol(text: str) -> int:
    try:
        return _whole(text, "number", low=0, high=2**31 - 1)
    except UserError as error:
        raise UserError(str(error).replace("--number", "Every number of the input")) from None


def _predict(parsed: argparse.Namespace) -> None:
    RunDirectory(Path(parsed.run)).read_config()  # refuse a directory that holds no run before torch is loaded
    symbols, top_k = _numbers_to_predict(parsed), _whole(parsed.top, "top")

    from echo_torch.inference import predictor as inference
    from echo_torch.lab import report

    try:
        predictor = inference.EchoPredictor.load(parsed.run, state=parsed.state)
        if parsed.ahead:
            right, asked = inference.guess_ahead(predictor.configuration, predictor.model)
            print(report.ahead_line(right, asked, predictor.configuration.vocabulary_size))
            if not symbols:
                return
        answers = predictor.answers(symbols, top_k=top_k)
        shares = predictor.explain(symbols, progress=_is_watched()) if parsed.explain else []
    except ValueError as error:
        sentence = str(error).replace("`symbols`", "The input").replace("`ahead`", "--ahead")
        raise UserError(sentence.replace("`state`", "--state")) from None
    print(report.state_line(predictor.configuration, len(symbols), is_carried=predictor.is_carried))
    for answer in answers:
        print(report.answer_line(answer.position, answer.of, symbols, answer.symbol, answer.top))
    for line in report.explanation_lines(symbols, shares):
        print(line)


def _stream(parsed: argparse.Namespace) -> None:
    RunDirectory(Path(parsed.run)).read_config()
    num_lanes = _whole(parsed.lanes, "lanes")

    import torch

    from echo_torch.inference.online import OnlineEcho, answer_lines

    torch.set_num_threads(1)  # faster than two at these sizes
    echo = OnlineEcho.load(parsed.run, num_lanes)
    if sys.stdin is None:
        raise UserError("The command stream reads standard input, which is closed.")
    # Bytes that are no text are somebody's bad line, not the end of the stream.
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a TextIOWrapper
    answer_lines(
        echo,
        sys.stdin,
        say=lambda line: print(line, flush=True),
        complain=lambda line: print(line, file=sys.stderr, flush=True),
    )
