"""The commands train and reach."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_torch.cli.flags import add_allow_changed_model, add_figures, add_options, options_of, shown
from echo_torch.cli.heavy import heavy_imports
from echo_torch.errors import RuleError
from echo_torch.experiments.configuration import (
    Configuration,
    configure_with_data,
    describe,
    memory_length,
)
from echo_torch.lab import memory, output
from echo_torch.lab.meeting import RENDEZVOUS_TIMEOUT, check_timeout
from echo_torch.lab.pictures import check_figures, form_of
from echo_torch.lab.run_directory import RunDirectory, check_new_file
from echo_torch.lab.yaml_files import to_yaml
from echo_torch.ranks import check_launcher, is_first_rank

if TYPE_CHECKING:
    from echo_torch.data.own_symbols import OwnNumbers


def add_train(parser: argparse.ArgumentParser) -> None:
    """The flags of train."""
    output = add_options(parser)["output"]
    output.add_argument("--run-dir", metavar="DIR", help="where the files go (default: a new one in runs/)")
    output.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="continue the run in --run-dir from its latest checkpoint, or begin it; or from this checkpoint",
    )
    add_allow_changed_model(output)
    output.add_argument(
        "--rendezvous-timeout",
        metavar="SECONDS",
        default=RENDEZVOUS_TIMEOUT,
        help=f"how long several processes wait for each other (default: {RENDEZVOUS_TIMEOUT:g})",
    )
    output.add_argument("--explain", action="store_true", help="say too what the data path allows, as reach does")
    add_figures(output)
    output.add_argument("--print-config", action="store_true", help="print the configuration and stop")
    output.add_argument("--no-progress", action="store_true", help="no progress bar")
    output.add_argument("--quiet", action="store_true", help="no output but errors")
    parser.set_defaults(command=_train, words={"run": "--run-dir"})


def add_reach(parser: argparse.ArgumentParser) -> None:
    """The flags of reach."""
    output = add_options(parser)["output"]
    output.add_argument("--json", action="store_true", help="print the numbers as JSON")
    output.add_argument(
        "--plot", metavar="FILE", help="draw which step each row reads, and what it is asked: a .png or .svg file"
    )
    output.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.set_defaults(command=_reach)


def _train(parsed: argparse.Namespace) -> None:
    check_launcher()
    parsed.rendezvous_timeout = check_timeout(parsed.rendezvous_timeout)
    check_figures(parsed.figures)
    mode, options = options_of(parsed)
    configuration, numbers = configure_with_data(mode, options)
    if parsed.print_config:
        print(to_yaml(configuration), end="")
        return
    check_launcher(configuration.devices)  # of several processes each at once: the first to end ends the others
    with memory.in_a_sentence(configuration):
        _train_configured(parsed, configuration, numbers)


def _train_configured(parsed: argparse.Namespace, configuration: Configuration, numbers: OwnNumbers | None) -> None:
    run = _run_directory(parsed, configuration)
    is_quiet = parsed.quiet or not is_first_rank()
    goes_on = f"The run goes on without it, and its files are in {str(run.path)!r}."
    say: Callable[[str], None] = (lambda line: None) if is_quiet else output.sayer(goes_on)

    # Imported when the flags are known to be good: the plan brings torch, the runner Lightning.
    with heavy_imports():
        from echo_torch.diagnosis.data_path.explaining import explain, reach_lines
        from echo_torch.lab import console, finished, report, runner
        from echo_torch.lab.plan import Plan

    plan, progress = Plan(configuration, numbers), False if is_quiet else shown(parsed)
    opening = report.opening_lines(plan, found := plan.reach(progress=progress))
    if parsed.explain:
        opening += [*reach_lines(found), explain(found, **_of_network(configuration))]

    def begin() -> None:
        for line in opening:
            say(line)

    audit = "count" if is_quiet else "warn"
    with console.warnings_as_lines(), _taken(parsed, configuration, run) as run:
        result = runner.train(
            plan,
            run,
            audit=audit,
            progress=progress,
            resume=parsed.resume,
            allow_changed_model=parsed.allow_changed_model,
            say=say,
            begin=begin,
            curve=True,
            figures=parsed.figures,
            rendezvous_timeout=parsed.rendezvous_timeout,
        )
    if is_quiet:
        return
    for line in report.result_lines(result, *plan.example(finished.load_weights(run, plan), progress=progress)):
        say(line)
    for line in report.conclusion_lines(configuration, found, result, run.read_metrics()):
        say(line)
    say(f"{result['updates']:,} updates in {result['seconds']:.1f} s; files: {run.path}")


def _of_network(configuration: Configuration) -> dict[str, Any]:
    """What `explain` cannot know from the data path alone."""
    return {"memory_length": memory_length(configuration), "is_carried": configuration.reading.carry == "keep"}


def _run_directory(parsed: argparse.Namespace, configuration: Configuration) -> RunDirectory:
    if parsed.resume is not None:
        if parsed.run_dir is None:
            raise RuleError("resume", "$resume needs $run, the directory of the run that is to go on")
        return RunDirectory(Path(parsed.run_dir))
    if not is_first_rank():  # the first one chooses and writes
        return RunDirectory(Path(parsed.run_dir or "runs"))
    return RunDirectory.new(parsed.run_dir, _name(configuration))


def _taken(
    parsed: argparse.Namespace, configuration: Configuration, run: RunDirectory
) -> contextlib.AbstractContextManager[RunDirectory]:
    """The directory, made where its name was chosen here: by now another training may have it."""
    if parsed.run_dir is not None or not is_first_rank():
        return contextlib.nullcontext(run)
    return RunDirectory.taken(_name(configuration))


def _name(configuration: Configuration) -> str:
    return f"{configuration.mode}-seed{configuration.seed}"


def _reach(parsed: argparse.Namespace) -> None:
    mode, options = options_of(parsed)
    configuration, numbers = configure_with_data(mode, options)
    if parsed.plot is not None:
        check_new_file(parsed.plot, "plot")
        form_of(parsed.plot)

    # Not the runner: it would bring Lightning, which this need not wait for.
    with heavy_imports():
        from echo_torch.diagnosis.data_path.explaining import explain, reach_lines
        from echo_torch.lab.plan import Plan

    plan = Plan(configuration, numbers)
    with memory.in_a_sentence(configuration):
        found = plan.reach(progress=shown(parsed))
    if parsed.json:
        print(json.dumps(found.to_dict()))
    else:
        print(f"asked: {describe(configuration)}")
        print("\n".join(reach_lines(found)))
        print(explain(found, **_of_network(configuration)))
    if parsed.plot is not None:
        from echo_torch.lab.reach_figure import draw_reach

        lag = configuration.reading.lag
        title = f"{configuration.mode}: at step t the row is asked for the symbol of step t - {lag}"
        draw_reach(plan.first_chunks(), lag, parsed.plot, title=title)
