"""Standard output and standard error, where nobody reads them any more, or they cannot write a letter."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

_GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe, the terminal


@contextlib.contextmanager
def that_ends_nothing() -> Iterator[None]:
    """Let neither a letter that cannot be written nor a closed standard error end what is being done.

    Letters that the encoding has not are escaped. What cannot be written to standard error is dropped: the progress
    bar and warnings are not worth a training.
    """
    before = sys.stderr
    with contextlib.ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            stack.enter_context(_escaping(stream))
        if sys.stderr is not None:  # it is, where it was closed before the start
            sys.stderr = cast(TextIO, _Dropping(sys.stderr))
        try:
            yield
        finally:
            sys.stderr = before


@contextlib.contextmanager
def _escaping(stream: Any) -> Iterator[None]:
    errors = getattr(stream, "errors", None)
    # In UTF-8 a path that is no text is written as it is, byte by byte.
    is_safe = errors == "surrogateescape" and stream.encoding.lower().replace("-", "") == "utf8"
    if errors not in ("strict", "surrogateescape") or is_safe or not hasattr(stream, "reconfigure"):
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors=errors)


class _Dropping:
    """A stream whose reader may go."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._until_it_goes():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._until_it_goes():
            self._stream.flush()

    @contextlib.contextmanager
    def _until_it_goes(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def drop(stream: Any) -> None:
    """Let all that goes to a stream from now on, and what it still holds, be lost in silence."""
    # The dummy keeps Python from complaining at exit.
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)


def has_no_reader(stream: Any) -> bool:
    """Whether whoever read a stream has gone."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def sayer(goes_on: str) -> Callable[[str], None]:
    """A function that prints lines as long as somebody reads them, and else says so once on standard error.

    Args:
        goes_on: What goes on without it, a sentence.
    """
    is_heard = True

    def say(line: str) -> None:
        nonlocal is_heard
        if not is_heard:
            return
        try:
            print(line, flush=True)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            is_heard = False
            drop(sys.stdout)
            if sys.stderr is not None:
                print(f"Standard output is closed. {goes_on}", file=sys.stderr, flush=True)

    return say
