"""How far a measured share or mean can be from the truth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import sqrt

Z_95 = 1.959964  # the normal distribution's 97.5 % point


def wilson_interval(correct: int, asked: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share.

    Args:
        correct: Successes, 0 <= correct <= asked.
        asked: Trials, at least 1.
        z: Its half width in standard deviations; that of a 95 % interval by default.

    Returns:
        (low, high), within 0..1.

    Source:
        Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    share, z2 = correct / asked, z**2
    centre = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = z / (1 + z2 / asked) * sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    # At the ends the interval reaches 0 or 1 exactly; rounding would miss them.
    return (centre - half if correct else 0.0), (centre + half if correct < asked else 1.0)


# Student's t at 97.5 % for 1, 2, ... degrees of freedom; beyond the table the normal value is near enough.
_T_975: tuple[float, ...] = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)


_T_975 += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half of the 95 % interval by Student's t; None where one value tells nothing of the spread."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    degrees = len(values) - 1
    factor = _T_975[degrees - 1] if degrees <= len(_T_975) else 1.96
    return mean, factor * statistics.stdev(values) / len(values) ** 0.5
