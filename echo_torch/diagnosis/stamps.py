"""Where the rows of a batch stand: all that reach and audit need to know of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from echo_torch.data.chunk import NOT_ASKED
from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError


class Stamps(NamedTuple):
    """What a batch says of where its rows stand: all that reach and audit need of it.

    >>> from echo_torch import reach
    >>> batches = [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]  # two rows, each of which goes on where it stopped
    >>> reach(batches, lag=1, stamps=lambda batch: Stamps(step=batch)).gap
    0

    Attributes:
        step: Integers (lanes, steps): the position of every column in its sequence; -1 where the row reads nothing,
            as in padding.
        sequence: Integers (lanes,): which sequence each lane reads; None: always the same.
        starts: Booleans (lanes,): where the state is reset before the batch; None: nowhere.
        is_read: Booleans (lanes, steps): where there is a symbol or reading; false also where it is missing from the
            data, which is no gap: its time passes. None: everywhere.
        is_asked: Booleans (lanes, steps): where a target is asked; None: everywhere.
    """

    step: ArrayLike
    sequence: ArrayLike | None = None
    starts: ArrayLike | None = None
    is_read: ArrayLike | None = None
    is_asked: ArrayLike | None = None


def stamps_of_chunk(chunk: Any) -> Stamps:
    """The stamps of this project's `Chunk`, of symbols or of readings.

    A missing reading counts as read: what stands for it are zeros, which a reading may be too. Of a vector of targets
    it is enough that one feature is asked.
    """
    symbols, targets = np.asarray(chunk.symbols), np.asarray(chunk.targets)
    is_read = np.asarray(chunk.step) >= 0 if symbols.dtype.kind == "f" else symbols >= 0
    is_asked = ~np.isnan(targets) if targets.dtype.kind == "f" else targets != NOT_ASKED
    if is_asked.ndim > np.ndim(chunk.step):
        is_asked = is_asked.any(axis=-1)
    return Stamps(chunk.step, chunk.sequence, chunk.starts, is_read, is_asked)


def places_of_chunk(chunk: Any) -> Stamps:
    """Where the rows of a `Chunk` stand, without its symbols and targets, which may be on another device."""
    return Stamps(chunk.step, chunk.sequence, chunk.starts)


def checked_places(stamps: Stamps) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Step, sequence and starts as arrays of the right types and shapes, what is None filled in.

    Raises:
        RuleError: If it is no `Stamps`, or a field is not of integers or booleans.
        RuleError: If a field has the wrong shape.
    """
    if not isinstance(stamps, Stamps):
        raise RuleError("stamps", "$stamps must return a Stamps for each batch", type(stamps).__name__)
    step = np.asarray(stamps.step)
    if step.ndim != 2 or not step.size:
        raise RuleError(
            "stamps",
            "$stamps must return $step with two axes, (lanes, steps), neither empty",
            f"shape {step.shape}",
            reason="because there is one position for each column of each row",
        )
    lanes = step.shape[:1]
    sequence = np.zeros(lanes, np.int64) if stamps.sequence is None else stamps.sequence
    starts = np.zeros(lanes, np.bool_) if stamps.starts is None else stamps.starts
    return (
        _check_field("step", step, np.int64, step.shape),
        _check_field("sequence", sequence, np.int64, lanes),
        _check_field("starts", starts, np.bool_, lanes),
    )


def checked_stamps(
    stamps: Stamps,
) -> tuple[Integers, Integers, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """All fields as arrays of the right types and shapes, what is None filled in; where nothing is, nothing is read.

    Raises:
        RuleError: As `checked_places`.
    """
    step, sequence, starts = checked_places(stamps)
    is_read = np.ones(step.shape, np.bool_) if stamps.is_read is None else stamps.is_read
    is_asked = np.ones(step.shape, np.bool_) if stamps.is_asked is None else stamps.is_asked
    is_read = _check_field("is_read", is_read, np.bool_, step.shape) & (step >= 0)
    return step, sequence, starts, is_read, _check_field("is_asked", is_asked, np.bool_, step.shape)


def _check_field(name: str, values: ArrayLike, kind: type, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != shape:
        axes = "(lanes,)" if len(shape) == 1 else "(lanes, steps)"
        raise RuleError(
            "stamps", f"$stamps must return ${name} of shape {axes} = {shape}, to fit its $step", f"shape {array.shape}"
        )
    if (array.dtype == np.bool_) != (kind is np.bool_) or array.dtype.kind not in "iub":
        word = "booleans" if kind is np.bool_ else "integers"
        raise RuleError("stamps", f"$stamps must return ${name} as {word}", f"dtype {array.dtype}")
    return array if array.dtype == kind else array.astype(kind)
