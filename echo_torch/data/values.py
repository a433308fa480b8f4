"""What a source and a user's function of targets return, checked and brought to the types of a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from echo_torch.data.chunk import NOT_ASKED
from echo_torch.errors import RuleError

_FLOATS = (np.float16, np.float32, np.float64)


def is_float(values: NDArray[Any]) -> bool:
    """Whether these are floats; they are integers otherwise."""
    return values.dtype.kind == "f"


def checked_symbols(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """What a source returned for places of a shape.

    Returns:
        int64 or floats of that shape, or floats (*shape, features).

    Raises:
        RuleError: If it has another shape or another type.
    """
    array = np.asarray(values)
    if array.dtype == np.int64 and array.shape == shape:  # almost always
        return array
    return _checked("source", array, shape)


def checked_answers(values: ArrayLike, num_places: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """What a user's function of targets returned for so many places.

    Args:
        values: As it returned them.
        num_places: For how many places.
        dtype: Of what the network reads. Floats become the same, float32 beside symbols: a loss takes them as they
            are, and numpy's float64 is seldom meant.

    Returns:
        int64 (places,), or floats (places,) or (places, features).

    Raises:
        RuleError: If they have another shape or another type.
    """
    array = _checked("targets", np.asarray(values), (num_places,))
    if not is_float(array):
        return array
    return array.astype(dtype if dtype.kind == "f" else np.float32, copy=False)


def check_alike(answers: NDArray[Any], example: NDArray[Any]) -> None:
    """Refuse answers of another type, or with other features, than those of another place."""
    if (answers.dtype, answers.shape[1:]) != (example.dtype, example.shape[1:]):
        raise RuleError(
            "targets",
            "$targets must return the same type, and as many features, for all places",
            f"{_kind(example)} for one place and {_kind(answers)} for {len(answers)} others",
            reason="because one network and one loss serve them all",
        )


def spread_answers(answers: NDArray[Any], is_there: NDArray[np.bool_]) -> NDArray[Any]:
    """Answers of places (places, ...) -> targets of chunks (*is_there.shape, ...); elsewhere nothing is asked."""
    not_asked = np.nan if is_float(answers) else NOT_ASKED
    targets = np.full(is_there.shape + answers.shape[1:], not_asked, dtype=answers.dtype)
    targets[is_there] = answers
    return targets


def readings_where(mask: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """A copy of readings, zeros where the mask is false or a reading is missing."""
    readings = only_where(mask, values, 0)
    readings[np.isnan(readings)] = 0
    return readings


def only_where(mask: NDArray[np.bool_], values: NDArray[Any], otherwise: float) -> NDArray[Any]:
    """A copy of values, (*mask.shape) or (*mask.shape, features), with another one where the mask is false."""
    wide = mask if values.ndim == mask.ndim else mask[..., None]
    return np.where(wide, values, values.dtype.type(otherwise))


def _checked(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    axes = ", ".join(map(str, shape))
    if array.shape[: len(shape)] != shape or array.ndim > len(shape) + 1 or 0 in array.shape[len(shape) :]:
        raise RuleError(
            name,
            f"${name} must return a number or a vector for each place, so shape {shape} or ({axes}, features)",
            f"shape {array.shape}",
        )
    if array.dtype in _FLOATS:
        return array
    if array.dtype.kind not in "iu":
        raise RuleError(
            name,
            f"${name} must return integers, or floats of 16, 32 or 64 bits",
            f"dtype {array.dtype}",
            way_out="convert them with .astype",
        )
    if array.ndim > len(shape):
        raise RuleError(name, f"${name} must return vectors as floats", f"dtype {array.dtype} of shape {array.shape}")
    return array.astype(np.int64, copy=False)


def _kind(answers: NDArray[Any]) -> str:
    return f"{answers.dtype}" + (f" with {answers.shape[1]} features" if answers.ndim > 1 else "")
