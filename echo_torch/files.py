"""Files written whole or not at all, and read without waiting for what never ends."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from echo_torch.errors import UserError

FORMAT = 1  # of config.yaml, result.json and checkpoints
PREVIOUS = "previous.ckpt"  # the checkpoint before the latest, beside it
_BUFFERED_BYTES = 2**16


class WriteError(UserError):
    """A file could not be written: the disk is full, the directory gone."""


class MovedError(WriteError):
    """A directory is not there any more under its name, or another one is."""


@dataclass(frozen=True)
class Place:
    """A directory that one works in, told from another that gets its name later.

    Attributes:
        path: Its name.
        identity: Its device and file number, which a rename does not change.
    """

    path: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: str | Path) -> Place:
        """The directory that has the name now.

        Raises:
            OSError: If there is none.
        """
        return cls(Path(path), _identity(path))

    def check(self) -> None:
        """Refuse to write where the name is not this directory's any more.

        Raises:
            MovedError: If it was renamed or removed.
        """
        try:
            if _identity(self.path) == self.identity:
                return
            what = "is another directory now than the one that this began in"
        except OSError:
            what = "is not there any more"
        where = next((f": that is {str(path)!r} now" for path in self._neighbours()), ": it was moved or removed")
        raise MovedError(f"{str(self.path)!r} {what}{where}.")

    def _neighbours(self) -> Iterator[Path]:
        """The directory under its new name, where it was renamed and not moved away."""
        with contextlib.suppress(OSError):
            for path in self.path.absolute().parent.iterdir():
                with contextlib.suppress(OSError):
                    if not path.is_symlink() and _identity(path) == self.identity:
                        yield path


@contextlib.contextmanager
def whole_file(path: str | Path, *, older: str | Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only when it is complete and on disk.

    It is written beside its destination, because a rename across file systems is a copy, which a kill can cut. Its
    directory is on disk too when this ends: else a power cut could take the name away again.

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
        beside = os.path.join(path.parent, _prefix(path) + secrets.token_hex(8))
        # Not by tempfile, whose files only their owner can read: to widen that, one must know the umask, which can only
        # be asked for by setting it, and that no thread can do beside others.
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        name = beside
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(name, path)
        to_disk(path.parent)
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from None
        raise


def to_disk(path: str | Path) -> None:
    """Wait until what was written to a file, or the names in a directory, would outlive a power cut.

    Raises:
        OSError: If the disk fails, or there is no such file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot, for directories
            raise
    finally:
        os.close(handle)


def make_directory(path: str | Path) -> None:
    """Make a directory and those above it, on disk under their names.

    Raises:
        OSError: If one cannot be made.
    """
    path = Path(path)
    missing = [one for one in (path, *path.absolute().parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        to_disk(one.absolute().parent)


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
        handle = _open_to_append(path)
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
        raise cannot_write(path, error) from None


def _open_to_append(path: str | Path) -> int:
    # A pipe that nobody reads from refuses to be opened without waiting; any other would take the text and lose it.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    if stat.S_ISFIFO(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a pipe")
    return handle


class _NeverWaits(io.FileIO):
    """A file whose reads are errors where they would wait: /proc/kmsg and its like pass for regular files."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, "it has no end that could be read up to")
        return count


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a file to read its bytes, and refuse what may never end: a pipe that nobody writes to, a device.

    Args:
        path: The file.

    Returns:
        It, from its first byte. It is to be read in parts: it may be larger than the memory, or grow.

    Raises:
        OSError: If it cannot be opened or is no regular file; later, if a read would wait.
    """
    try:
        status = os.stat(path)
    except ValueError:  # a zero character, or a letter that this system cannot write
        raise OSError(errno.EINVAL, "no file can have this name") from None
    _check_regular(status)  # before it is opened, to which some devices answer with what they do
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(handle))
        return io.BufferedReader(_NeverWaits(handle), _BUFFERED_BYTES)
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """All of a regular file that is known to be small.

    Args:
        path: The file.
        max_bytes: How large it may be.

    Raises:
        OSError: As `open_regular`, or if it is larger.
    """
    with open_regular(path) as file:
        # What is there counts, not the size that the system names: that of /proc is 0, and a file may grow.
        if os.fstat(file.fileno()).st_size > max_bytes or len(data := file.read(max_bytes + 1)) > max_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {max_bytes:,} bytes, the most that is read")
    return data


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise OSError(errno.EINVAL, f"it is {what}")


def unfinished(path: str | Path) -> list[Path]:
    """What killed processes left of a file that never became whole."""
    path = Path(path)
    return [other for other in path.parent.iterdir() if other.name.startswith(_prefix(path))]


def remove_unfinished(path: str | Path) -> None:
    """Remove what killed processes left of a file that never became whole."""
    for leftover in unfinished(path):
        leftover.unlink(missing_ok=True)


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _prefix(path: Path) -> str:
    return f".{path.name}.writing-"


def cannot_write(path: str | Path, error: OSError) -> WriteError:
    """The error of a file that the system refuses to write."""
    return WriteError(f"Cannot write {str(path)!r}: {error.strerror or error}.")
