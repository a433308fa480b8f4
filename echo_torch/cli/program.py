"""The program: its commands, and a sentence and an exit code for whatever goes wrong."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import echo_torch
from echo_torch.cli.answers import add_evaluate, add_predict, add_stream
from echo_torch.cli.flags import words_of
from echo_torch.cli.sweeps import add_compare, add_lags, add_map
from echo_torch.cli.train import add_reach, add_train
from echo_torch.errors import Interrupted, UserError, suggest
from echo_torch.lab.meeting import MeetingError, MeetingInterrupted
from echo_torch.lab.memory import is_out_of_memory
from echo_torch.lab.output import drop, has_no_reader, that_ends_nothing
from echo_torch.lab.processes import raise_at_endings
from echo_torch.ranks import is_first_rank

EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128  # and the signal's number, as shells have it
_LONG_WORD = re.compile(r"\S{300,}")  # longer than any path; nobody reads the rest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after the program's name; None: those of this process.

    Returns:
        The exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    # Lightning brings matplotlib in, which refuses to be imported with a backend it does not know. None is needed here.
    os.environ["MPLBACKEND"] = "agg"
    with that_ends_nothing():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    say = words_of([], {})
    try:
        raise_at_endings()
        parser = _parser()
        parsed = parser.parse_args(arguments)
        if parsed.command is None:
            parser.print_help()
            return 0
        say = words_of(parsed.flags, parsed.words)
        command: Callable[[argparse.Namespace], None] = parsed.command
        command(parsed)
        if sys.stdout is not None:  # it is, where it was closed before the start
            sys.stdout.flush()
    except UserError as error:
        if _speaks(error):
            _complain(error.wording(say))
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as error:
        number, sentence = (error.number, error.wording(say)) if isinstance(error, Interrupted) else (signal.SIGINT, "")
        if _speaks(error):
            _complain(sentence or "Interrupted.")
        return EXIT_SIGNAL + number
    except Exception as error:
        return _end_with(error)
    return 0


def _end_with(error: Exception) -> int:
    """Say what can be said of an error of the machine, and return the exit code; one of this program is raised."""
    if is_out_of_memory(error):
        _complain(f"The memory does not suffice for this ({_first_line(error)}).")
        return EXIT_BAD_INPUT
    if not isinstance(error, OSError):
        raise error
    if isinstance(error, BrokenPipeError) and has_no_reader(sys.stdout):
        drop(sys.stdout)  # the reader (head, less) has gone: that is no error
        return 0
    if error.filename is None:  # that of a file has a name
        drop(sys.stdout)
    what = "Standard output" if error.filename is None else repr(error.filename)
    _complain(f"{what} cannot be used: {error.strerror or error}.")
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


def _complain(sentence: str) -> None:
    sentence = _LONG_WORD.sub(lambda word: f"{word[0][:40]}...", sentence)
    print(sentence[:1].upper() + sentence[1:], file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message[0].upper() + message[1:].rstrip(".") + ".")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            raise UserError(f"There is no flag or argument {word!r} here{suggest(word, parsed.flags)}.")
        return parsed


_COMMANDS = (
    ("train", "train one experiment", add_train),
    ("reach", "say before any training what the data path of an experiment allows", add_reach),
    ("compare", "train the arms that keep reach, horizon and carry apart, over several seeds", add_compare),
    ("map", "train aligned lanes over a grid of lags, chunk lengths and learning rates", add_map),
    ("lags", "train mode lag over a grid of lags and hidden sizes, the state carried and reset", add_lags),
    ("evaluate", "repeat the evaluation of a finished run", add_evaluate),
    ("predict", "answer your own numbers with a finished run", add_predict),
    ("stream", "read numbers from standard input and answer each at once, windows from an empty state", add_stream),
)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="echo_torch",
        description="Recurrent networks with carried state, on the echo task.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"echo-torch {echo_torch.__version__}")
    parser.set_defaults(command=None, flags=["--version", "--help"], words={})
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    for name, help_line, add in _COMMANDS:
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
