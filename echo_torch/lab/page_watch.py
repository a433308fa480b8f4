"""What a watch of the same training has found, as a part of its page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError
from echo_torch.files import read_bytes
from echo_torch.lab.html import Html, paragraphs, table, tag

_MAX_BYTES = 2**22
_WORDS, _COUNTS = ("kind", "module", "sentence"), ("count", "of")


def read_watched(path: str | Path) -> dict[str, Any]:
    """The findings that the command watch has written.

    Raises:
        RuleError: If the file cannot be read, or holds something else.
    """
    rule, way_out = "$watched must be the file that the command watch has written", "make one with watch and its $json"
    try:
        found = json.loads(read_bytes(path, _MAX_BYTES))
    except OSError as error:
        raise RuleError("watched", rule, f"{str(path)!r} ({error.strerror or error})", way_out=way_out) from None
    except (ValueError, RecursionError):
        found = None
    if not _is_right(found):
        raise RuleError("watched", rule, repr(str(path)), way_out=way_out)
    return dict(found)


def _is_right(found: object) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("unknown"), list):
        return False
    lists = [found.get("findings"), found.get("intended", [])]
    return all(isinstance(one, list) and all(map(_is_finding, one)) for one in lists)


def _is_finding(one: object) -> bool:
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in _WORDS)
        and all(type(one.get(name)) is int and one[name] >= 0 for name in _COUNTS)  # True is an int, too
    )


def watched_parts(found: Mapping[str, Any]) -> Iterator[Html]:
    """The findings in a table, and what could not be seen.

    Args:
        found: As `read_watched` returns it.
    """
    if not found["findings"]:
        yield paragraphs(["Nothing that a state would suffer from."])
    for name, caption in (("findings", "Faults"), ("intended", "What is meant")):
        if rows := [_row(one) for one in found.get(name, [])]:
            yield table(["kind", "layer", "how often", "what it is"], rows, caption=caption)
    if found["unknown"]:
        yield paragraphs(["What could not be seen:"])
        yield tag("ul", *(tag("li", sentence) for sentence in found["unknown"]))


def _row(one: Mapping[str, Any]) -> list[str]:
    return [one["kind"], one["module"], f"{one['count']:,} of {one['of']:,}", one["sentence"]]
