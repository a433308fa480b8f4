"""What is said to somebody who waits: on standard error, and only where it takes longer than two seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from echo_torch.errors import RuleError

# False: nothing is said. True: a bar is drawn. "line": a sentence says what is being done, and how long it takes.
Progress: TypeAlias = bool | Literal["line"]

PATIENCE_SECONDS = 2.0
_REFRESH_SECONDS = 0.2


class Waiting:
    """A loop that somebody waits for. A thread looks at `done` and speaks, so that the loop itself does nothing for it.

    >>> with Waiting("Adding up", 3, "numbers", progress=False) as waiting:
    ...     for number in (1, 2, 3):
    ...         waiting.done += 1

    The thread speaks also while a single step of the loop takes long.

    Args:
        doing: What is being done, as a sentence begins: "Reading the file".
        total: How many steps there are; None: nobody knows.
        unit: What the steps are, in the plural.
        progress: What is shown.
        step: What one step holds, said where the first takes long: "1 row of 1,000,000 steps".

    Attributes:
        done: How many steps are done.

    Raises:
        RuleError: If `progress` is none of the three.
    """

    def __init__(self, doing: str, total: int | None, unit: str, *, progress: Progress, step: str = "") -> None:
        if progress not in (False, True, "line"):
            raise RuleError("progress", "$progress must be True, False or 'line'", repr(progress))
        self.done = 0
        self._doing, self._total, self._unit, self._step = doing, total, unit, step
        self._progress = progress
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        self.end()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be said."""
        return self._thread is None or not self._thread.is_alive()

    def begin(self) -> None:
        """Begin to count the seconds."""
        self._begin = time.monotonic()
        if self._progress and sys.stderr is not None:
            self._thread = threading.Thread(target=self._speak, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Say nothing more."""
        self._has_ended.set()
        if self._thread is not None:
            self._thread.join()

    def _speak(self) -> None:
        if self._has_ended.wait(PATIENCE_SECONDS):
            return
        with contextlib.suppress(OSError, ValueError):  # there may be nobody to hear it any more
            (self._draw if self._progress is True else self._say)()

    def _draw(self) -> None:
        from tqdm import tqdm

        file = Heard(sys.stderr)
        bar: tqdm[Any] = tqdm(
            total=self._total, desc=self._doing, unit=f" {self._unit}", file=file, leave=False, dynamic_ncols=True
        )
        bar.start_t -= time.monotonic() - self._begin  # the rate is that of all the time
        try:
            while file.is_heard and not self._has_ended.wait(_REFRESH_SECONDS):
                bar.n = self.done
                bar.set_postfix_str(f"each {self._step}" if self._step and not self.done else "", refresh=False)
                bar.refresh()
        finally:
            bar.close()

    def _say(self) -> None:
        self._print(self.sentence())
        if self.done == 0 and self._total is not None:
            while not self._has_ended.wait(_REFRESH_SECONDS):
                if self.done:  # now it can be told
                    self._print(self.sentence())
                    return

    def sentence(self) -> str:
        """What is being done, how far it is, and how long it takes if it goes on as it went."""
        seconds = time.monotonic() - self._begin
        took, done = in_words(seconds), self.done
        if self._total is None:
            return f"{self._doing}: it is not done after {took}, and how long it takes is not known."
        if not done:
            step = f", each {self._step}," if self._step else ""
            return (
                f"{self._doing}: the first of {self._total:,} {self._unit}{step} is not done after {took}; how long "
                "it takes in all can be told when it is."
            )
        in_all = in_words(seconds * self._total / done)
        return f"{self._doing}: {done:,} of {self._total:,} {self._unit} in {took}, about {in_all} in all."

    def _print(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)


class Heard:
    """A stream for bars, whose reader may go: tqdm keeps its lock for ever where a write fails.

    Args:
        stream: The stream.

    Attributes:
        is_heard: Whether somebody reads it, as far as is known.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.is_heard = True

    def write(self, text: str) -> int:
        """Write, or not."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        if self.is_heard:
            try:
                act()
            except (OSError, ValueError):
                self.is_heard = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> in_words(2.3), in_words(840), in_words(90_000), in_words(10**6)
    ('2 s', '14 minutes', '25 hours', '12 days')
    """
    for unit, size, most in (("s", 1, 120), ("minutes", 60, 120), ("hours", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 86400:,.0f} days"


def size_in_words(num_rows: int, num_steps: int) -> str:
    """How much a chunk holds.

    >>> size_in_words(1, 1_000_000), size_in_words(5, 1)
    ('1 row of 1,000,000 steps', '5 rows of 1 step')
    """
    return f"{num_rows:,} row{'s' * (num_rows != 1)} of {num_steps:,} step{'s' * (num_steps != 1)}"
