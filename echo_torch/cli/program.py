"""The program: its commands, and a sentence and an exit code for whatever goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import echo_torch
from echo_torch.cli.answers import add_evaluate, add_predict, add_stream
from echo_torch.cli.parser import EXIT_BAD_INPUT, Parser, complain, flags_of, in_columns, words_of
from echo_torch.cli.report import add_report
from echo_torch.cli.show import add_show
from echo_torch.cli.sweeps import add_compare, add_lags, add_map, add_sweep
from echo_torch.cli.train import add_reach, add_train
from echo_torch.cli.watch import add_watch, watch_script
from echo_torch.errors import Interrupted, RuleError, UserError, did_you_mean
from echo_torch.experiments.catalogue import EXPERIMENTS
from echo_torch.experiments.other_words import suggest_choice
from echo_torch.lab.meeting import MeetingError, MeetingInterrupted
from echo_torch.lab.memory import is_out_of_memory
from echo_torch.lab.output import drop, has_no_reader, that_ends_nothing
from echo_torch.lab.processes import raise_at_endings
from echo_torch.ranks import is_first_rank

_SECONDS_FOR_THE_FIRST = 5
EXIT_SIGNAL = 128  # and the signal's number, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after the program's name; None: those of this process.

    Returns:
        The exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["watch"]:
        return watch_script(words[1:])
    # Lightning brings matplotlib in, which refuses to be imported with a backend it does not know. None is needed here.
    os.environ["MPLBACKEND"] = "agg"
    with that_ends_nothing():
        return _main(words)


def _main(words: Sequence[str]) -> int:
    say = words_of([], {})
    try:
        raise_at_endings()
        parser = _parser()
        _check_command(words)
        parsed = parser.parse_args(words)
        if parsed.command is None:
            parser.print_help()
            return 0
        say = words_of(parsed.flags, parsed.words)
        _check_directories(parsed)
        command: Callable[[argparse.Namespace], None] = parsed.command
        command(parsed)
        if sys.stdout is not None:  # it is, where it was closed before the start
            sys.stdout.flush()
    except UserError as error:
        if _speaks(error):
            complain(error.wording(say))
        else:
            _let_the_first_speak()
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as error:
        number, sentence = (error.number, error.wording(say)) if isinstance(error, Interrupted) else (signal.SIGINT, "")
        if _speaks(error):
            complain(sentence or "Interrupted.")
        return EXIT_SIGNAL + number
    except Exception as error:
        return _end_with(error)
    return 0


def _check_command(words: Sequence[str]) -> None:
    """Refuse a first word that is no command, before argparse looks for one further on.

    Raises:
        UserError: If it is none, nor a flag of the program itself.
    """
    commands = [name for name, *_ in _COMMANDS]
    if not words or words[0] in (*commands, "-h", "--help", "--version"):
        return
    first = words[0]
    if first.startswith("-"):
        raise UserError(f"A command must stand before its flags. Got {first!r} first; write train {first} ...")
    guess = (
        did_you_mean(f"train --mode {first}") if first in EXPERIMENTS else suggest_choice("command", first, commands)
    )
    raise UserError(f"There is no command {first!r}{guess}; the commands are {', '.join(commands)}.")


def _check_directories(parsed: argparse.Namespace) -> None:
    """Refuse an empty name, which would be the current directory; a variable of the shell may have been empty.

    Raises:
        RuleError: If there is one.
    """
    for name in ("run", "run_dir", "status"):
        if getattr(parsed, name, None) == "":
            raise RuleError(
                name, f"${name} must be the name of a directory", "''", way_out="for the current one write ./"
            )


def _let_the_first_speak() -> None:
    """Wait a little before this process ends: a launcher then ends all others, also the one that has yet to say why."""
    with contextlib.suppress(KeyboardInterrupt):  # it has spoken, and the launcher ends this one
        time.sleep(_SECONDS_FOR_THE_FIRST)


def _end_with(error: Exception) -> int:
    """Say what can be said of an error of the machine, and return the exit code; one of this program is raised."""
    if is_out_of_memory(error):
        complain(f"The memory does not suffice for this ({_first_line(error)}).")
        return EXIT_BAD_INPUT
    if not isinstance(error, OSError):
        raise error
    if isinstance(error, BrokenPipeError) and has_no_reader(sys.stdout):
        drop(sys.stdout)  # the reader (head, less) has gone: that is no error
        return 0
    if error.filename is None:  # that of a file has a name
        drop(sys.stdout)
    what = "Standard output" if error.filename is None else repr(error.filename)
    complain(f"{what} cannot be used: {error.strerror or error}.")
    return EXIT_BAD_INPUT


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".: ")


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program: `main`, and the end of its process, which no Ctrl-C disturbs any more.

    Args:
        arguments: As of `main`.
    """
    code = main(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(code)


def _speaks(error: BaseException) -> bool:
    """Whether this process says it: one of several speaks for all, but each for itself where they have not met."""
    return is_first_rank() or isinstance(error, (MeetingError, MeetingInterrupted))


_COMMANDS = (
    ("train", "train one experiment", add_train),
    ("show", "show before any training what an experiment reads, batch by batch", add_show),
    ("reach", "say before any training what the data path of an experiment allows", add_reach),
    ("sweep", "train all combinations of some options, over several seeds", add_sweep),
    ("compare", "train the arms that keep reach, horizon and carry apart, over several seeds", add_compare),
    ("map", "train aligned lanes over a grid of lags, chunk lengths and learning rates", add_map),
    ("lags", "train mode lag over a grid of lags and hidden sizes, the state carried and reset", add_lags),
    ("evaluate", "repeat the evaluation of a finished run", add_evaluate),
    ("predict", "answer your own numbers with a finished run", add_predict),
    ("stream", "read numbers from standard input and answer each at once, windows from an empty state", add_stream),
    ("report", "write the page of a run or of a sweep: one file that needs no other", add_report),
    ("watch", "run a script of your own and say what its training does with its state", add_watch),
)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="echo-torch",
        description="Recurrent networks with carried state, on the echo task.",
        epilog="To begin: python -m echo_torch show --mode lag, and then python -m echo_torch train --mode lag.",
        allow_abbrev=False,
        formatter_class=in_columns,
    )
    parser.add_argument("--version", action="version", version=f"echo-torch {echo_torch.__version__}")
    parser.set_defaults(command=None, flags=["--version", "--help"], words={})
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for name, help_line, add in _COMMANDS:
        sub = commands.add_parser(
            name,
            help=help_line,
            description=help_line.capitalize() + ".",
            allow_abbrev=False,
            formatter_class=in_columns,
        )
        add(sub)
        sub.set_defaults(flags=flags_of(sub))
    return parser
