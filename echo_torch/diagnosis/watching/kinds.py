"""The kinds of findings, for whoever must know their names before anything is imported."""

from __future__ import annotations

from collections.abc import Iterable

from echo_torch.errors import RuleError, suggest

KIND_NAMES = (
    "rows-skip", "rows-reread", "shuffled", "other-sequence", "state-lost", "lanes-moved", "rows-changed",
    "fields-swapped", "axes", "order", "not-detached", "cut-inside", "padding-read", "validation-leak",
    "foreign-state", "unwatched",
)  # fmt: skip


def check_kinds(name: str, kinds: Iterable[str], *more: str) -> tuple[str, ...]:
    """The kinds of an argument, all of which are known.

    >>> check_kinds("intended", ["rows-skip"])
    ('rows-skip',)

    Args:
        name: The argument.
        kinds: What it got.
        more: Further words that are known there.

    Raises:
        RuleError: If one is unknown.
    """
    if isinstance(kinds, str):
        raise RuleError(name, f"${name} must be a list of kinds", repr(kinds), way_out=f"write [{kinds!r}]")
    found, known = tuple(kinds), (*KIND_NAMES, *more)
    for kind in found:
        if kind not in known:
            rule = f"${name} must be a kind of finding"
            way_out = f"kinds are {', '.join(known)}"
            raise RuleError(name, rule, f"{kind!r}{suggest(kind, known)}", way_out=way_out)
    return found
