"""SIGTERM ends a watched script behind its report; the script, and what it forks, see no handler but their own."""

from __future__ import annotations

import functools
import os
import signal
from _thread import get_ident  # not of threading, which a script may want to be the first to import
from collections.abc import Callable
from typing import Any


class Sigterm:
    """The answer to SIGTERM while a script runs.

    Args:
        report: Is called before the signal ends the process.
    """

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report
        self._process = os.getpid()
        self._set, self._get = signal.signal, signal.getsignal
        self._holds: set[int] = set()  # the threads that hold the signal back

    def begin(self) -> None:
        """Report before SIGTERM ends the process, unless it does not listen to that, or the script answers by itself.

        Frameworks ask which handler there is before they set theirs, and hand the signal on to it: they are told what
        they would be without the watch.
        """
        if self._get(signal.SIGTERM) != signal.SIG_DFL:
            return
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._leave)
        self._set(signal.SIGTERM, self._die)
        signals: Any = signal

        @functools.wraps(self._get)
        def getsignal(number: int) -> Any:
            return self._shown(self._get(number))

        @functools.wraps(self._set)
        def set_signal(number: int, handler: Any) -> Any:
            is_default = number == signal.SIGTERM and handler == signal.SIG_DFL and os.getpid() == self._process
            return self._shown(self._set(number, self._die if is_default else handler))

        signals.getsignal, signals.signal = getsignal, set_signal

    def _shown(self, handler: Any) -> Any:
        return signal.SIG_DFL if handler == self._die else handler

    def _die(self, number: int, frame: Any) -> None:
        self._report()
        self._set(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _hold(self) -> None:
        """Before a fork: a child that it reaches before it has left this handler would lose it, and never end.

        Not where the script has a handler: what that raises would be lost on the way out of a fork.
        """
        if self._get(signal.SIGTERM) != self._die:
            return
        if signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}):
            self._holds.add(get_ident())

    def _let_go(self) -> None:
        if get_ident() in self._holds:
            self._holds.discard(get_ident())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def _leave(self) -> None:
        """In the child the signal does what it does without the watch."""
        if self._get(signal.SIGTERM) == self._die:
            self._set(signal.SIGTERM, signal.SIG_DFL)
        self._let_go()
