"""What goes wrong, as data: the sentence is worded where it is read, with names in Python and with flags in a shell."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from string import Template
from typing import Any

# By which a process is asked to end; not every system has a terminal that can go away.
ENDINGS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_CLOSE = 0.75  # of 1: "widht" and "width" have 0.8, "lr" and "layers" 0.5


class UserError(Exception):
    """Something only the user can mend, in one sentence that says how.

    >>> from echo_torch import configure
    >>> try:
    ...     configure("lag", lag=9)
    ... except UserError as error:
    ...     print(type(error).__name__)
    RuleError

    Args:
        message: What is wrong, as it is.
        way_out: What to do, a clause of its own; `$name` stands for an argument, as in `RuleError`.
    """

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(message, way_out)
        self.message = message
        self.way_out = way_out

    def wording(self, say: Callable[[str], str]) -> str:
        """The sentence, each argument in the words of whoever reads it.

        Args:
            say: An argument's name -> what it is called there, such as its flag.
        """
        return join(self.message, fill_in(self.way_out, say))

    def __str__(self) -> str:
        return self.wording(in_python)


class RuleError(UserError, ValueError):
    """A broken rule of an argument, worded as rule, reason, what it got, way out.

        RuleError("lag", "$lag must be smaller than $window", "lag 5 with window 5", reason="so that it lies inside")
        in Python: `lag` must be smaller than `window`, so that it lies inside. Got lag 5 with window 5.
        in a shell: --lag must be smaller than --window, so that it lies inside. Got lag 5 with window 5.

    It is a ValueError for values of a wrong type too.

    Args:
        name: The argument.
        rule: What must be so, a clause in which `$name` stands for an argument of that name.
        got: What it got, as it is; empty where there is nothing to show.
        reason: Why, as it goes on after a comma: "because ..." or "so that ...".
        way_out: What to do instead.
    """

    def __init__(self, name: str, rule: str, got: object = "", *, reason: str = "", way_out: str = "") -> None:
        super().__init__(rule, way_out)
        self.name, self.rule, self.reason, self.got = name, rule, reason, str(got)

    def wording(self, say: Callable[[str], str]) -> str:
        """The sentence, as of `UserError`."""
        rule, reason, way_out = (fill_in(part, say) for part in (self.rule, self.reason, self.way_out))
        sentence = join(rule, reason, ", ")
        ending = join(f"Got {self.got}", way_out, "; ") if self.got else way_out[:1].upper() + way_out[1:]
        return f"{sentence}. {ending}." if ending else f"{sentence}."

    def __reduce__(self) -> Any:  # it goes from process to process
        return _rule_error, (self.name, self.rule, self.got, self.reason, self.way_out)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM, or SIGHUP, by which a terminal says that it is gone.

    Args:
        number: The signal.
        message: What is kept, one sentence.
        way_out: How to go on; `$name` stands for an argument, as in `RuleError`.
    """

    def __init__(self, number: int, message: str = "", way_out: str = "") -> None:
        super().__init__(number, message, way_out)
        self.number, self.message, self.way_out = number, message, way_out

    def wording(self, say: Callable[[str], str]) -> str:
        """The sentences, as of `UserError`."""
        return join(self.message, fill_in(self.way_out, say))

    def __str__(self) -> str:
        return self.wording(in_python)


def in_python(name: str) -> str:
    """An argument's name as Python's readers know it."""
    return f"`{name}`"


def suggest(word: object, known: Iterable[str]) -> str:
    """' (did you mean ...?)' where a known word is close, else nothing: no guess is better than a wrong one."""
    # Without hyphens before them: these make any two flags alike.
    bare = {one.lstrip("-"): one for one in known}
    close = difflib.get_close_matches(str(word).lstrip("-"), list(bare), n=1, cutoff=_CLOSE)
    return did_you_mean(bare[close[0]]) if close else ""


def did_you_mean(word: str) -> str:
    """The guess in words, as it stands behind what was written."""
    return f" (did you mean {word!r}?)"


def plain(text: object) -> str:
    """A text for a rule or way out in which a dollar sign is a dollar sign."""
    return str(text).replace("$", "$$")


def shorten(value: object) -> str:
    """A value as text, cut where nobody would read on."""
    try:
        text = str(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def join(one: str, other: str, between: str = " ") -> str:
    """Two parts of a sentence, where both are there."""
    return one + between + other if one and other else one or other


def fill_in(text: str, say: Callable[[str], str]) -> str:
    """A clause with each `$name` in somebody's words."""
    return Template(text).substitute(_Words(say)) if "$" in text else text


class _Words(Mapping[str, str]):
    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say

    def __getitem__(self, name: str) -> str:
        return self._say(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _rule_error(name: str, rule: str, got: str, reason: str, way_out: str) -> RuleError:
    return RuleError(name, rule, got, reason=reason, way_out=way_out)
