"""Signals as a command in a terminal has them."""

import signal


def listen():
    """In a child: a shell that starts the tests in the background, or `nohup`, has them ignore some signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
