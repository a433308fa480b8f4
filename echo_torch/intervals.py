"""How far a measured share or mean can be from the truth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import sqrt
from typing import Any

Z_95 = statistics.NormalDist().inv_cdf(0.975)


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


def student_quantile(degrees: int, share: float = 0.975) -> float:
    """Student's t below which a share lies.

    >>> round(student_quantile(30), 4)
    2.0423

    Args:
        degrees: Degrees of freedom, at least 1.
        share: 0.5 < share < 1.

    Source:
        Its two tails hold a regularised incomplete beta function: Abramowitz and Stegun (1964), 26.7.1.
    """
    import mpmath  # for tables over seeds alone; torch brings it, with sympy

    def excess(t: Any) -> Any:
        tails = mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + t**2), regularized=True)
        return tails - 2 * (1 - share)

    return float(mpmath.findroot(excess, (1.5, 3.0), solver="anderson"))


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half of the 95 % interval by Student's t; None where one value tells nothing of the spread."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, student_quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
