"""The front door of the program: a script is watched without what all other commands need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program, to the end of its process.

    Args:
        arguments: Words after the program's name; None: those of this process.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["watch"]:
        # Whatever is imported here is there before the script's own neighbours are looked for.
        from echo_torch.cli.watch import watch_script

        raise SystemExit(watch_script(words[1:]))
    from echo_torch.cli import program

    program.run(words)
