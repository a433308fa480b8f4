"""Directories that one process works in: a lock that dies with its process, and with it alone."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SECONDS = 3.0  # in which a process notices that the one that began it was killed, and ends
_POLL_SECONDS = 0.05
_WITHOUT_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP}  # what a file system says that has none, as Lustre may

_handles: set[int] = set()


def _let_go() -> None:
    # A lock belongs to all who have the file open, so a loader process would keep that of a killed training.
    for handle in _handles:
        os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def locked(path: Path, *, is_shared: bool = False) -> Iterator[bool]:
    """Lock a directory as long as the block lasts.

    Args:
        path: The directory.
        is_shared: Whether others may do so too who share it.

    Yields:
        Whether it is locked, within `SECONDS`; where the system, or the file system, has no locks
            it counts as locked.

    Raises:
        OSError: If the directory cannot be opened.
    """
    if fcntl is None:
        yield True
        return
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _handles.add(handle)
    try:
        yield _lock(handle, time.monotonic() + SECONDS, is_shared=is_shared)
    finally:
        if handle in _handles:  # not in a child that was forked in the block
            _handles.remove(handle)
            os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a process works in a directory now; it is not disturbed, since it waits a little for such a look."""
    if fcntl is None:
        return False
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _WITHOUT_LOCKS
    finally:
        os.close(handle)
    return False


def _lock(handle: int, deadline: float, *, is_shared: bool) -> bool:
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
