"""What all commands share: how words are read, and how it is said what is wrong with them. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from echo_torch.errors import UserError, did_you_mean

EXIT_BAD_INPUT = 2
# Python calls a number of steps *_length and a count num_*; a flag is shorter.
_SHORT_NAMES = {"window_length": "window", "num_layers": "layers", "num_lanes": "lanes", "chunk_length": "chunk"}
DEFAULT_MODE = "lag"
_LONG_WORD = re.compile(r"\S{300,}")  # longer than any path; nobody reads the rest

_NO_VALUE = re.compile(r"argument (\S+): expected .*argument.*")
_MISSING = re.compile(r"the following arguments are required: (.*)")
_VALUE_OF_A_SWITCH = re.compile(r"argument (\S+): ignored explicit argument (.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse has to say as an error of the user."""
        if found := _VALUE_OF_A_SWITCH.fullmatch(message):
            raise UserError(f"{found[1]} takes no value. Got {found[2]}.")
        if (found := _NO_VALUE.fullmatch(message)) and (action := self._action_of(found[1])) is not None:
            value = action.metavar or action.dest.upper()
            raise UserError(f"{found[1]} needs a value. Got none; write {found[1]} {value}.")
        if found := _MISSING.fullmatch(message):
            told = [
                f"{name} is missing: {action.help}"
                for name in found[1].split(", ")
                if (action := self._action_of(name))
            ]
            raise UserError(f"{'; '.join(told)}.")
        raise UserError(message[0].upper() + message[1:].rstrip(".") + ".")

    def _action_of(self, name: str) -> argparse.Action | None:
        """What argparse calls by its flag, the word for its value, or its name."""
        return next((one for one in self._actions if name in (*one.option_strings, one.metavar, one.dest)), None)

    # What changes the help to that of the words that were given, which are those of the command.
    fit_help: Callable[[Sequence[str]], None] | None = None
    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and keep the words for the help."""
        self._words = args or ()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """The help, of one mode where one is named."""
        if self.fit_help is not None:
            self.fit_help(self._words)
        return super().format_help()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse what is unknown with a suggestion."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            raise UserError(f"There is no flag or argument {word!r} here{_guess(word, parsed)}.")
        return parsed


def _guess(word: str, parsed: argparse.Namespace) -> str:
    """The flag that was meant, one that has a meaning in the mode."""
    from echo_torch.experiments.catalogue import EXPERIMENTS
    from echo_torch.experiments.options import OPTIONS
    from echo_torch.experiments.other_words import suggest_option

    known = parsed.flags
    if "--mode" in known:
        if word in EXPERIMENTS:
            return did_you_mean(f"--mode {word}")
        mode = getattr(parsed, "mode", DEFAULT_MODE if parsed.config is None else None)  # a file may name another
        used = EXPERIMENTS[mode].options if mode in EXPERIMENTS else OPTIONS
        known = [flag for flag in known if flag not in {OPTIONS[name].flag for name in OPTIONS if name not in used}]
    return suggest_option(word, known)


def in_columns(prog: str) -> argparse.HelpFormatter:
    """The help of a command: flags on the left, what they do on the right."""
    return _Columns(prog, max_help_position=32, width=110)


class _Columns(argparse.HelpFormatter):
    """Keeps the lines of a help text."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [part for line in text.splitlines() for part in textwrap.wrap(line, width, subsequent_indent="  ")]


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """All flags that a command has."""
    return [flag for action in parser._actions for flag in action.option_strings]


def words_of(flags: Sequence[str], words: Mapping[str, str]) -> Callable[[str], str]:
    """What a command calls an argument: the word it has for it, or its flag, or, where it has none, the plain name.

    Args:
        flags: All flags of the command.
        words: Its words for arguments that have no flag of their own name.
    """

    def say(name: str) -> str:
        short = _SHORT_NAMES.get(name, name)
        flag = "--" + short.replace("_", "-")
        return words.get(name) or (flag if flag in flags else short.replace("_", " "))

    return say


def complain(sentence: str) -> None:
    """Say on standard error what is wrong."""
    sentence = _LONG_WORD.sub(lambda word: f"{word[0][:40]}...", sentence)
    print(sentence[:1].upper() + sentence[1:], file=sys.stderr, flush=True)
