"""Checkpoint files: whole, with a digest, in two generations, and read without running anything in them.

A checkpoint is an archive as `torch.save` writes it, with its SHA-256 as the archive's comment, where other readers
do not mind it.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from echo_torch.errors import UserError
from echo_torch.files import PREVIOUS, open_regular, whole_file

CHECKPOINT_KEY = "carried_state"  # what the module adds to Lightning's
RUN_KEY = "run"  # what is said of the run
_MARK = b"sha256:"
_COMMENT_LENGTH = len(_MARK) + 64


class CheckpointError(UserError):
    """A checkpoint that cannot be read; the message says which and why."""


class TooLargeError(CheckpointError):
    """A checkpoint that the memory does not hold now; nothing is wrong with it."""


class CheckpointWarning(UserWarning):
    """The latest checkpoint cannot be read and an older one is used."""


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint with its digest; the one that had the name before becomes `previous.ckpt` beside it.

    Args:
        checkpoint: Tensors, numbers, texts, and dicts and lists of them.
        path: The file.

    Raises:
        WriteError: If it cannot be written; then the older ones are as they were.
        CheckpointError: If it holds something that could not be read back; likewise.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    if (name := _not_plain(checkpoint)) is not None:
        _check_readable(buffer, name)
    length = struct.pack("<H", _COMMENT_LENGTH)
    # The last two bytes of an archive without a comment say that it has none. The views are let go whatever happens:
    # Python 3.12.1 crashes where its garbage collector finds them in the traceback of a failed write.
    with (
        whole_file(path, older=path.with_name(PREVIOUS)) as file,
        buffer.getbuffer() as whole,
        whole[:-2] as body,
    ):
        file.write(body)
        file.write(length + _MARK + _digest(body, length))


def _not_plain(value: Any, name: str = "it") -> str | None:
    """Where a checkpoint holds something else than surely can be read back; None where it does not."""
    kind = type(value)  # a subclass is another thing: an enum is a str
    if value is None or kind in (str, int, float, bool, bytes) or isinstance(value, torch.Tensor):
        return None
    is_dict = kind in (dict, OrderedDict)
    parts = value.items() if is_dict else enumerate(value) if kind in (list, tuple) else None
    if parts is None:
        return f"{name} = {type(value).__name__}"
    return next((found for key, part in parts if (found := _not_plain(part, f"{name}[{key!r}]"))), None)


def _check_readable(buffer: io.BytesIO, name: str) -> None:
    buffer.seek(0)
    try:
        torch.load(buffer, map_location="cpu", weights_only=True)
    except Exception:
        raise CheckpointError(
            f"The checkpoint could not be read back, as it would hold more than tensors, numbers and texts: {name}. "
            "A module or a callback gives it from its state_dict or checkpoint hook; let it give plain values."
        ) from None


@dataclass
class Checkpoint:
    """A checkpoint that was read, checked and parsed once, and is handed on.

    Attributes:
        path: Its file.
        contents: What it holds, on the CPU; empty once it was taken.
        update: Updates made when it was written.
    """

    path: Path
    contents: dict[str, Any]
    update: int

    def take(self) -> dict[str, Any]:
        """The contents, which are forgotten here: a training need not keep them beside its own."""
        contents, self.contents = self.contents, {}
        return contents


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU: its digest is checked first, and nothing that it holds is run.

    Raises:
        TooLargeError: If it does not fit into the memory.
        CheckpointError: If it is no file, is damaged, or holds more than tensors, numbers, texts and their collections.
    """
    if "://" in str(path):
        raise CheckpointError(
            f"A checkpoint must be a file on this machine, a URL is never fetched. Got {str(path)!r}."
        )
    try:
        data = _read_whole(Path(path))
        checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        if _is_for_want_of_memory(error):
            raise TooLargeError(
                f"The checkpoint {str(path)!r} does not fit into the memory that is free; free some, or allow this "
                "process more."
            ) from None
        # A crafted file can raise almost anything, from UnpicklingError to KeyError.
        raise CheckpointError(
            f"The checkpoint {str(path)!r} is refused: it holds other things than tensors, numbers and texts "
            f"({type(error).__name__}), which could run code."
        ) from None
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"The checkpoint {str(path)!r} holds a {type(checkpoint).__name__}, not a training.")
    return checkpoint


def _read_whole(path: Path) -> bytes:
    """A file's bytes, which fit its digest.

    Raises:
        CheckpointError: If they do not.
        MemoryError: If they are too many.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _COMMENT_LENGTH))
            # Looked at first, for of a file that was cut or grown all the rest would be read for nothing.
            is_marked = file.read(len(_MARK)) == _MARK
            if is_marked and size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
                raise MemoryError  # a system that promises more than it has would end this process instead
            file.seek(0)
            data = file.read(size) if is_marked else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"The checkpoint {str(path)!r} cannot be read: {reason}.") from None
    whole = memoryview(data)
    body, length, comment = whole[: -_COMMENT_LENGTH - 2], whole[-_COMMENT_LENGTH - 2 : -_COMMENT_LENGTH], data[-64:]
    if data[-_COMMENT_LENGTH:-64] != _MARK or _digest(body, length) != comment:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} is not what was written: its digest does not fit, so it was cut or altered."
        )
    return data


def _is_for_want_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error)  # torch has no error of its own for it


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of a training.

    Raises:
        CheckpointError: As `read_checkpoint`, or if it does not say how many updates were made.
    """
    contents = read_checkpoint(path)
    update = contents.get("global_step")
    if not isinstance(update, int) or update < 0:
        raise CheckpointError(f"The checkpoint {str(path)!r} does not say how many updates were made.")
    return Checkpoint(Path(path), contents, update)


def newest_checkpoint(
    path: str | Path, check: Callable[[Checkpoint], object] = lambda checkpoint: None
) -> Checkpoint | None:
    """The latest of the two generations that can be read, and used.

    Args:
        path: The latest one's file; the one before is `previous.ckpt` beside it.
        check: Raises a CheckpointError where a checkpoint cannot be used but the one before may; other errors end it.

    Returns:
        The checkpoint, None where there is none. Where the latest cannot be used, a CheckpointWarning says why.

    Raises:
        TooLargeError: If the latest that is whole does not fit into the memory.
        CheckpointError: If there are some but none can be used.
    """
    path = Path(path)
    found = [file for file in (path, path.with_name(PREVIOUS)) if file.exists()]
    reasons = []
    for file in found:
        try:
            checkpoint = load_checkpoint(file)
            check(checkpoint)
        except TooLargeError:
            raise  # it is good: to go on from the older one would give it up
        except CheckpointError as error:
            reasons.append(error.message)
            continue
        if reasons:
            warnings.warn(f"{reasons[0]} The one before is used: {str(file)!r}.", CheckpointWarning, stacklevel=2)
        return checkpoint
    if found:
        raise CheckpointError(" ".join([*dict.fromkeys(reasons), "No other is left, so the run must be done anew."]))
    return None


def make_latest(chosen: str | Path, path: str | Path) -> None:
    """Leave no later generation than the chosen checkpoint, which a training goes on from.

    A later one is damaged, or belongs to what is given up; as the older generation of the next it would mislead.

    Args:
        chosen: A checkpoint that can be read.
        path: The latest one's file, as in `newest_checkpoint`.
    """
    chosen, path = Path(chosen), Path(path)
    previous = path.with_name(PREVIOUS)
    if previous.exists() and chosen.samefile(previous):
        path.unlink(missing_ok=True)
    elif not (path.exists() and chosen.samefile(path)):
        with whole_file(path) as file, open_regular(chosen) as source:
            shutil.copyfileobj(source, file)
        previous.unlink(missing_ok=True)


def _digest(body: memoryview, length: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(body)
    digest.update(length)
    return digest.hexdigest().encode()
