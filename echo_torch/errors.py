"""What goes wrong, in words for the person who can mend it."""

from __future__ import annotations


class UserError(Exception):
    """Something only the user can mend; the message is one sentence that says how."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM.

    Args:
        number: The signal.
        message: What is kept and how to go on; one sentence.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number, message)
        self.number = number
        self.message = message
