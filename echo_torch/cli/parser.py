"""What all commands share: how words are read, and how it is said what is wrong with them. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from echo_torch.errors import UserError, suggest

EXIT_BAD_INPUT = 2
# Python calls a number of steps *_length and a count num_*; a flag is shorter.
_SHORT_NAMES = {"window_length": "window", "num_layers": "layers", "num_lanes": "lanes", "chunk_length": "chunk"}
_LONG_WORD = re.compile(r"\S{300,}")  # longer than any path; nobody reads the rest


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse has to say as an error of the user."""
        raise UserError(message[0].upper() + message[1:].rstrip(".") + ".")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse what is unknown with a suggestion."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            raise UserError(f"There is no flag or argument {word!r} here{suggest(word, parsed.flags)}.")
        return parsed


def in_columns(prog: str) -> argparse.HelpFormatter:
    """The help of a command: flags on the left, what they do on the right."""
    return argparse.HelpFormatter(prog, max_help_position=32, width=110)


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
