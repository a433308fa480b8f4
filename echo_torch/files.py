"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from echo_torch.errors import UserError

FORMAT = 1  # of config.yaml, result.json and checkpoints


class WriteError(UserError):
    """A file could not be written: the disk is full, the directory gone."""


@contextlib.contextmanager
def whole_file(path: str | Path, *, older: str | Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only when it is complete and on disk.

    It is written beside its destination, because a rename across file systems is a copy, which a kill can cut.

    Args:
        path: The final name; an older file of that name stays until the new one is whole.
        older: The name that the older file gets then; None: it is replaced.

    Yields:
        A binary file to write to.

    Raises:
        WriteError: If it cannot be written; then nothing is left behind.
    """
    path = Path(path)
    name = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(name, path)
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from None
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def append_text(path: str | Path, text: str) -> None:
    """Add to a text file, UTF-8, in one write; where that fails, the file is as it was before.

    Raises:
        WriteError: If it cannot be written.
    """
    data = text.encode()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            while data:  # a disk that is almost full takes a part first
                data = data[os.write(handle, data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from None


def check_regular(path: str | Path, max_bytes: int | None = None) -> None:
    """Refuse what may never end: a pipe that nobody writes to, a device, a file far too large.

    Raises:
        OSError: If it is no regular file, or larger than so many bytes.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise OSError(errno.EINVAL, f"it is {what}")
    if max_bytes is not None and status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, and {max_bytes:,} are allowed")


def remove_unfinished(path: str | Path) -> None:
    """Remove what killed processes left of a file that never became whole."""
    path = Path(path)
    for leftover in path.parent.glob(f"{_prefix(path)}*"):
        leftover.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.writing-"


def _cannot_write(path: str | Path, error: OSError) -> WriteError:
    return WriteError(f"Cannot write {str(path)!r}: {error.strerror or error}.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
