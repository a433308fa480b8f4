"""Where the rows of a batch stand: all that reach and audit need to know of it."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from echo_torch.data.chunk import NOT_ASKED
from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError, shorten

NOT_PUT_IN = -1  # as `Stamps.restored` says it


class Stamps(NamedTuple):
    """What a batch says of where its rows stand: all that reach and audit need of it.

    >>> from echo_torch import reach
    >>> batches = [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]  # two rows, each of which goes on where it stopped
    >>> reach(batches, lag=1, stamps=lambda batch: Stamps(step=batch)).gap
    0

    Two sequences one after another in a row, the state reset where the second begins:

    >>> row = Stamps(step=[[5, 6, 0, 1]], sequence=[[0, 0, 1, 1]], starts=[[False, False, True, False]])
    >>> reach([row], stamps=lambda batch: batch).gaps
    {0: 2}

    Attributes:
        step: Integers (lanes, steps): the position of every column in its sequence; -1 where the row reads nothing,
            as in padding.
        sequence: Integers (lanes,), or (lanes, steps) where it changes inside a row: which sequence each lane reads;
            None: always the same.
        starts: Booleans (lanes,): where the state is reset before the batch; or (lanes, steps): before which columns.
            None: nowhere.
        is_read: Booleans (lanes, steps): where there is a symbol or reading; false also where it is missing from the
            data, which is no gap: its time passes. None: everywhere.
        is_asked: Booleans (lanes, steps): where a target is asked, which padding never is; None: everywhere.
        answers: Integers (lanes, steps), or (lanes, steps, answers) where a target needs several: the positions in
            the row's sequence of what a target asks for. Negative: before the sequence begins, where nobody reads.
            None: they lie `reach`'s `lag` before the target.
        restored: Integers (lanes,), before the batch, or (lanes, steps), before each column: the last step that a
            state has read which is put in there, from a buffer, in the place of what the lane carries; -1: none is.
    """

    step: ArrayLike
    sequence: ArrayLike | None = None
    starts: ArrayLike | None = None
    is_read: ArrayLike | None = None
    is_asked: ArrayLike | None = None
    answers: ArrayLike | None = None
    restored: ArrayLike | None = None


class CheckedStamps(NamedTuple):
    """Stamps as arrays of the right types and shapes, nothing left out.

    Attributes:
        step: int64 (lanes, steps).
        sequence: int64 (lanes, 1) or (lanes, steps).
        starts: bool (lanes, 1), before the first column, or (lanes, steps).
        is_read: bool (lanes, steps), false where the step is negative.
        is_asked: bool (lanes, steps), false where the step is negative.
        answers: int64 (lanes, steps, answers); without answers where none are given.
        restored: int64 (lanes, 1) or (lanes, steps).
    """

    step: Integers
    sequence: Integers
    starts: NDArray[np.bool_]
    is_read: NDArray[np.bool_]
    is_asked: NDArray[np.bool_]
    answers: Integers
    restored: Integers


def stamps_of_chunk(chunk: Any) -> Stamps:
    """The stamps of this project's `Chunk`, of symbols or of readings.

    A missing reading counts as read: what stands for it are zeros, which a reading may be too. Of a vector of targets
    it is enough that one feature is asked.
    """
    symbols, targets, step = as_array(chunk.symbols), as_array(chunk.targets), as_array(chunk.step)
    is_read = step >= 0 if symbols.dtype.kind == "f" else symbols >= 0
    is_asked = ~np.isnan(targets) if targets.dtype.kind == "f" else targets != NOT_ASKED
    if is_asked.ndim > step.ndim:
        is_asked = is_asked.any(axis=-1)
    return Stamps(step, chunk.sequence, chunk.starts, is_read, is_asked)


def placed_chunk(batch: Any) -> tuple[Any, Stamps] | None:
    """What the model reads of this project's `Chunk`, and where its rows stand; None for any other batch."""
    is_chunk = all(hasattr(batch, name) for name in ("symbols", "targets", "starts", "sequence", "step"))
    return (batch.symbols, stamps_of_chunk(batch)) if is_chunk else None


def places_of_chunk(chunk: Any) -> Stamps:
    """Where the rows of a `Chunk` stand, without its symbols and targets, which may be on another device."""
    return Stamps(chunk.step, chunk.sequence, chunk.starts)


def as_array(values: Any) -> NDArray[Any]:
    """Values as an array, from whatever device they are on."""
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # numpy has none
            values = values.half()
    try:
        return np.asarray(values)
    except ValueError:  # rows of unequal length
        rule = "$stamps must return arrays, whose rows are of equal length"
        raise RuleError("stamps", rule, shorten(values), way_out="fill short rows up with the step -1") from None


def whole_number(value: Any) -> int | None:
    """A whole number of whatever type, a numpy number or a tensor of one value among them; None if it is none."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def checked_places(stamps: Stamps) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Step, sequence and starts as arrays of the right types and shapes, what is None filled in.

    Returns:
        int64 (lanes, steps), and int64 and bool, each (lanes,) or (lanes, steps) as they are given.

    Raises:
        RuleError: If it is no `Stamps`, or a field is not of integers or booleans.
        RuleError: If a field has the wrong shape.
    """
    step = _checked_step(stamps)
    lanes = step.shape[:1]
    sequence = np.zeros(lanes, np.int64) if stamps.sequence is None else stamps.sequence
    starts = np.zeros(lanes, np.bool_) if stamps.starts is None else stamps.starts
    return (
        step,
        _check_field("sequence", sequence, np.int64, step.shape, may_be_of_lanes=True),
        _check_field("starts", starts, np.bool_, step.shape, may_be_of_lanes=True),
    )


def checked_restored(stamps: Stamps) -> Integers | None:
    """What is put in from a buffer, int64 (lanes,) or (lanes, steps); None where nothing is.

    Raises:
        RuleError: As `checked_places`.
    """
    if stamps.restored is None:
        return None
    shape = _checked_step(stamps).shape
    return _check_field("restored", stamps.restored, np.int64, shape, may_be_of_lanes=True)


def checked_stamps(stamps: Stamps) -> CheckedStamps:
    """All fields as arrays of the right types and shapes, what is None filled in; where nothing is, nothing is read.

    Raises:
        RuleError: As `checked_places`.
    """
    step, sequence, starts = checked_places(stamps)
    restored = checked_restored(stamps)
    is_place = step >= 0
    is_read, is_asked = (
        is_place if field is None else is_place & _check_field(name, field, np.bool_, step.shape)
        for name, field in (("is_read", stamps.is_read), ("is_asked", stamps.is_asked))
    )
    return CheckedStamps(
        step,
        _by_column(sequence),
        _by_column(starts),
        is_read,
        is_asked,
        _checked_answers(stamps.answers, step.shape),
        np.full((len(step), 1), NOT_PUT_IN) if restored is None else _by_column(restored),
    )


def _checked_step(stamps: Stamps) -> Integers:
    if not isinstance(stamps, Stamps):
        raise RuleError("stamps", "$stamps must return a Stamps for each batch", type(stamps).__name__)
    step = as_array(stamps.step)
    if step.ndim != 2 or not step.size:
        raise RuleError(
            "stamps",
            "$stamps must return $step with two axes, (lanes, steps), neither empty",
            f"shape {step.shape}",
            reason="because there is one position for each column of each row",
        )
    if step.dtype.kind not in "iub":
        raise RuleError("stamps", "$stamps must return $step as integers", f"dtype {_dtype_of(stamps.step, step)}")
    return _check_field("step", step, np.int64, step.shape)


def _checked_answers(answers: ArrayLike | None, shape: tuple[int, ...]) -> Integers:
    if answers is None:
        return np.zeros((*shape, 0), np.int64)
    array = as_array(answers)
    if array.ndim == 3 and array.shape[2]:
        return _check_field("answers", array, np.int64, (*shape, array.shape[2]))
    return _check_field("answers", array, np.int64, shape)[..., None]


def _by_column(values: NDArray[Any]) -> NDArray[Any]:
    """(lanes,) as (lanes, 1)."""
    return values[:, None] if values.ndim == 1 else values


def _dtype_of(values: ArrayLike, array: NDArray[Any]) -> str:
    """The type of the values as they were given."""
    return str(getattr(values, "dtype", array.dtype)).removeprefix("torch.")


def _check_field(
    name: str, values: ArrayLike, kind: type, shape: tuple[int, ...], *, may_be_of_lanes: bool = False
) -> NDArray[Any]:
    array = as_array(values)
    if array.shape != shape and not (may_be_of_lanes and array.shape == shape[:1]):
        needed = (
            f"(lanes,) = {shape[:1]} or (lanes, steps) = {shape}" if may_be_of_lanes else f"(lanes, steps) = {shape}"
        )
        if len(shape) == 3:
            needed = f"(lanes, steps, answers), of which (lanes, steps) = {shape[:2]}"
        raise RuleError(
            "stamps", f"$stamps must return ${name} of shape {needed}, to fit its $step", f"shape {array.shape}"
        )
    if (array.dtype == np.bool_) != (kind is np.bool_) or array.dtype.kind not in "iub":
        word = "booleans" if kind is np.bool_ else "integers"
        raise RuleError("stamps", f"$stamps must return ${name} as {word}", f"dtype {_dtype_of(values, array)}")
    return array if array.dtype == kind else array.astype(kind)
