"""The command watch: somebody's script, run as it is, and a word about its state. Imports no torch before it does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from echo_torch.cli.parser import EXIT_BAD_INPUT, Parser, complain, flags_of, in_columns, words_of
from echo_torch.cli.scripts import Script
from echo_torch.cli.watched import EXIT_FOUND, Asked, Watched
from echo_torch.diagnosis.watching.kinds import KIND_NAMES, check_kinds
from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.options import Option

_ANY = "any"
_UPDATES = Option("updates", int, 50, "", "", 1, 10**9)
_USAGE = "%(prog)s [options] [--] (script.py | -m module) [args ...]"
_ABOUT = """Run a script of your own as Python runs it, and say at its end, on standard error, what its training does
with the states of its recurrent layers. The script is not changed, and needs no import. Options of watch stand before
the script; all that stands behind it belongs to the script."""
_BELOW = f"""Kinds of findings: {", ".join(KIND_NAMES)}. The exit code is that of the script; 2: watch was
not understood; {EXIT_FOUND}: --fail-on has found something. Of several processes each is watched:
torchrun --nproc-per-node 2 -m echo_torch watch train.py; their files bear their ranks."""


def add_watch(parser: argparse.ArgumentParser) -> None:
    """The flags of watch."""
    parser.usage, parser.description, parser.epilog = _USAGE, _ABOUT, _BELOW
    parser.add_argument(
        "--updates",
        metavar="N",
        default=str(_UPDATES.default),
        help=f"optimiser steps that are watched, or, without an optimiser, calls of the model (default: "
        f"{_UPDATES.default})",
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings there too")
    parser.add_argument("--plot", metavar="FILE", help="draw there what the rows of a layer read: a .png or .svg file")
    parser.add_argument(
        "--intended", metavar="KIND", action="append", default=[], help="findings of this kind are meant; repeatable"
    )
    parser.add_argument(
        "--fail-on",
        metavar="KIND",
        action="append",
        default=[],
        help=f"exit code {EXIT_FOUND} if a finding of this kind is there, or, with the word {_ANY}, any that is not "
        "intended; repeatable",
    )
    parser.add_argument("--stop", action="store_true", help="end the script after the updates that are watched")
    parser.add_argument("--force", action="store_true", help="overwrite files")


def watch_script(words: Sequence[str]) -> int:
    """Run a script and watch it.

    Args:
        words: Options, then a script or "-m" and a module, then whatever belongs to these.

    Returns:
        The exit code: 0, 1 if something is found by which it shall fail, 2 for bad input.

    Raises:
        BaseException: Whatever the script raises.
    """
    parser = Parser(prog="echo-torch watch", allow_abbrev=False, formatter_class=in_columns)
    add_watch(parser)
    parser.set_defaults(flags=flags_of(parser))
    say = words_of([*parser.get_default("flags"), "-m"], {"script": "the script"})
    try:
        own, others = _split(words, parser)
        asked = _asked(parser.parse_args(own))
        if others in ([], ["-m"]):
            example = "as in: python -m echo_torch watch train.py --epochs 1"
            raise RuleError(
                "script", "$script, or -m and a module, must be named", reason=f"behind all flags, {example}"
            )
        script = Script(others)
        watched = Watched(asked)
        script.load()
    except UserError as error:
        complain(error.wording(say))
        return EXIT_BAD_INPUT
    watched.begin()
    return _run(script, watched)


def _run(script: Script, watched: Watched) -> int:
    """The script in its own words, up to its end; by itself it has ended well, if it says nothing else."""
    try:
        script.run()
    except SystemExit as end:
        if end.code or not watched.fails():
            raise
        raise SystemExit(EXIT_FOUND) from None
    return EXIT_FOUND if watched.fails() else 0


def _split(words: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """The words of watch itself, and those of the script, of which none is looked at."""
    with_value = {flag for action in parser._actions if action.nargs != 0 for flag in action.option_strings}
    number = 0
    while number < len(words):
        word = words[number]
        if word == "--":
            return list(words[:number]), list(words[number + 1 :])
        if word.startswith("-m"):  # -mmodule too, as Python has it
            return list(words[:number]), ["-m", *([word[2:]] if word[2:] else []), *words[number + 1 :]]
        if not word.startswith("-"):
            return list(words[:number]), list(words[number:])
        number += 2 if word in with_value else 1
    return list(words), []


def _asked(parsed: argparse.Namespace) -> Asked:
    updates = _UPDATES.check(parsed.updates)
    return Asked(
        updates=int(updates),  # type: ignore[arg-type]  # a number, as asked
        intended=check_kinds("intended", parsed.intended),
        fail_on=check_kinds("fail_on", parsed.fail_on, _ANY),
        json=parsed.json,
        plot=parsed.plot,
        is_stopped=parsed.stop,
        is_forced=parsed.force,
    )
