"""A sequence cut into windows, and what each window is asked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from echo_torch.data.random_symbols import Integers
from echo_torch.errors import RuleError

NO_STEP = -1


def answer_steps(steps: Integers, lag: int, first: Integers | int = 0) -> Integers:
    """Which step holds the answer at each step: the only arithmetic on lags.

    Args:
        steps: int64, any shape; -1 where nothing is read.
        lag: How many steps back the answer lies.
        first: The first step that was there to be read; broadcasts with `steps`.

    Returns:
        int64 of the same shape: `steps - lag`, -1 where that lies before `first`.
    """
    return np.where(steps - lag >= first, steps - lag, NO_STEP)


class Frames(NamedTuple):
    """The windows of one sequence, in the order in which they are read.

    >>> frame_windows(length=4, window_length=3, lag=1).steps.tolist()
    [[0, 1, 2], [1, 2, 3]]

    Attributes:
        steps: int64 (windows, steps), which step of the sequence each column reads; -1 where it reads nothing.
        answers: int64 (windows, steps), which step holds the symbol that is asked there; -1 where nothing is asked.
    """

    steps: Integers
    answers: Integers


def frame_windows(length: int, window_length: int, lag: int, *, num_dropped: int = 0) -> Frames:
    """Cut one sequence into overlapping windows, each asked for one echo at its last step.

        step        0  1  2  3  4
        symbol      7  2  9  4  1        window_length=3, lag=1
        window 0    7  2 [9]       -> 2
        window 1       2  9 [4]    -> 9
        window 2          9  4 [1] -> 4

    The answer may lie before the window: a carried state may still hold it. Where it lies before the sequence
    (step < lag), the window keeps its place and is not asked.

    >>> frame_windows(length=5, window_length=3, lag=1).answers.tolist()
    [[-1, -1, 1], [-1, -1, 2], [-1, -1, 3]]

    Args:
        length: Steps in the sequence.
        window_length: Steps per window, at least 1.
        lag: How many steps before the window's last step the answer lies, at least 0.
        num_dropped: Complete windows left out at the front. The tutorial drops one in both its lag experiments.

    Returns:
        Frames of `length - window_length + 1 - num_dropped` windows.

    Raises:
        RuleError: If no window is left, or a number is negative.

    Source:
        Brownlee (2017), "Echo Lag Observation".
    """
    _check_numbers(length, lag, window_length)
    if num_dropped < 0:
        raise RuleError("num_dropped", "$num_dropped must be at least 0", num_dropped)
    num_windows = length - window_length + 1 - num_dropped
    if num_windows < 1:
        dropped = f" after the first {num_dropped} dropped" if num_dropped else ""
        raise RuleError(
            "length",
            f"$length must be at least {window_length + num_dropped}",
            length,
            reason=f"so that one window of {window_length} is left{dropped}",
        )
    steps = num_dropped + np.arange(num_windows)[:, None] + np.arange(window_length)
    answers = np.full_like(steps, NO_STEP)
    answers[:, -1] = answer_steps(steps[:, -1], lag)
    return Frames(steps, answers)


def frame_masked(length: int, window_length: int, lag: int) -> Frames:
    """A window for every step of the sequence; what would lie before the sequence is missing.

        step        0  1  2  3
        symbol      7  2  9  4        window_length=3, lag=1
        window 0    -  - [7]          not asked: there is no step before
        window 1    -  7 [2]       -> 7
        window 2    7  2 [9]       -> 2
        window 3       2  9 [4]    -> 9

    Args:
        length: Steps in the sequence, at least 1.
        window_length: Steps per window, at least 1.
        lag: How many steps before the window's last step the answer lies, at least 0.

    Returns:
        Frames of `length` windows.

    Raises:
        RuleError: If a number is too small.

    Source:
        Brownlee (2017), "Extensions": mask missing data.
    """
    _check_numbers(length, lag, window_length)
    steps = np.maximum(np.arange(length)[:, None] + np.arange(1 - window_length, 1), NO_STEP)
    answers = np.full_like(steps, NO_STEP)
    answers[:, -1] = answer_steps(steps[:, -1], lag)
    return Frames(steps, answers)


def frame_prefixes(length: int, lag: int) -> Frames:
    """For every step a row with the sequence as it has unfolded so far, asked at its last step.

        step        0  1  2  3
        symbol      7  2  9  4        lag=1
        row 0      [7] -  -  -        not asked
        row 1       7 [2] -  -     -> 7
        row 2       7  2 [9] -     -> 2
        row 3       7  2  9 [4]    -> 9

    The rows are filled up on the right, after their question, so the padding cannot touch the answer. A row's state
    is of no use to another row: it belongs behind the padding.

    Args:
        length: Steps in the sequence, at least 1.
        lag: How many steps before the row's last step the answer lies, at least 0.

    Returns:
        Frames of `length` rows of `length` columns.

    Raises:
        RuleError: If a number is too small.

    Source:
        Brownlee (2017), "Extensions": the entire sequence as time steps.
    """
    _check_numbers(length, lag)
    steps = np.tile(np.arange(length), (length, 1))
    answers = np.where(np.eye(length, dtype=bool), answer_steps(steps, lag), NO_STEP)
    return Frames(np.where(steps <= np.arange(length)[:, None], steps, NO_STEP), answers)


def frame_sequence(length: int, lag: int) -> Frames:
    """The whole sequence as one row, asked at every step that has an answer.

        step        0  1  2  3
        symbol      7  2  9  4        lag=1
        answer      -  7  2  9

    Args:
        length: Steps in the sequence, at least 1.
        lag: How many steps back the answer lies, at least 0.

    Returns:
        Frames of one row of `length` columns.

    Raises:
        RuleError: If a number is too small.

    Source:
        Brownlee (2017), "Extensions": echo a lag sequence.
    """
    _check_numbers(length, lag)
    steps = np.arange(length)[None]
    return Frames(steps, answer_steps(steps, lag))


def _check_numbers(length: int, lag: int, window_length: int = 1) -> None:
    if window_length < 1:
        raise RuleError("window_length", "$window_length must be at least 1: a window reads something", window_length)
    if lag < 0:
        raise RuleError("lag", "$lag must be at least 0: an echo cannot come before its symbol", lag)
    if length < 1:
        raise RuleError("length", "$length must be at least 1: a sequence has steps", length)
