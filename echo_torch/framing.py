"""A sequence cut into windows, and what each window is asked: the only arithmetic on lags."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from echo_torch.sequences import Integers

NO_STEP = -1


class Frames(NamedTuple):
    """The windows of one sequence, in the order in which they are read.

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

    Args:
        length: Steps in the sequence.
        window_length: Steps per window, at least 1.
        lag: How many steps before the window's last step the answer lies, at least 0.
        num_dropped: Complete windows left out at the front. The tutorial drops one in both its lag experiments.

    Returns:
        Frames of `length - window_length + 1 - num_dropped` windows.

    Raises:
        ValueError: If no window is left, or a number is negative.

    Source:
        Brownlee (2017), "Echo Lag Observation".
    """
    if window_length < 1:
        raise ValueError(f"`window_length` must be at least 1: a window reads something. Got {window_length}.")
    if lag < 0:
        raise ValueError(f"`lag` must be at least 0: an echo cannot come before its symbol. Got {lag}.")
    if num_dropped < 0:
        raise ValueError(f"`num_dropped` must be at least 0. Got {num_dropped}.")
    num_windows = length - window_length + 1 - num_dropped
    if num_windows < 1:
        dropped = f" after the first {num_dropped} dropped" if num_dropped else ""
        raise ValueError(
            f"`length` must be at least {window_length + num_dropped}, so that one window of {window_length} is left"
            f"{dropped}. Got {length}."
        )
    steps = num_dropped + np.arange(num_windows)[:, None] + np.arange(window_length)
    answers = np.full_like(steps, NO_STEP)
    answers[:, -1] = np.maximum(steps[:, -1] - lag, NO_STEP)
    return Frames(steps, answers)
