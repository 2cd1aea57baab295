"""Number of repeats until the Student's t interval of a mean excludes 0."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from lit_mem.errors import MetricError, check_range

MOST: Final = 1000
"""Larger numbers of repeats are not reported."""


def repeats_to_leave_zero(mean: float, deviation: float, level: float = 0.95, most: int = MOST) -> int | None:
    """The smallest number of repeats whose interval of the mean excludes 0.

    The quantile of Student's t depends on the number too: the smallest n with |mean| > t(n − 1) · deviation / √n. The
    right side decreases with n, so every larger number satisfies it too.

    This is a plan, not a guarantee: mean and deviation are treated as the true values. At this n the next mean is below
    the assumed one about as often as above it, so the interval excludes 0 in about half of all cases.

    Args:
        mean: mean of the repeats, in their unit.
        deviation: standard deviation of one repeat (of n − 1), at least 0, in the same unit.
        level: confidence of the two-sided interval, in (0, 1).
        most: the largest number to consider, at least 2.

    Returns:
        At least 2; None if `most` repeats are not enough, as for a mean of 0.

    Raises:
        MetricError: the deviation is below 0, or `most` below 2.

    >>> repeats_to_leave_zero(1.0, 1.0), repeats_to_leave_zero(1.0, 1.0, level=0.99), repeats_to_leave_zero(0.0, 1.0)
    (7, 11, None)
    """
    check_range("the deviation", deviation, at_least=0, kind=MetricError)
    check_range("the most repeats", most, at_least=2, kind=MetricError)
    does = abs(mean) > _half_widths(level, most) * deviation
    return 2 + int(does.argmax()) if does.any() else None


@lru_cache(maxsize=16)
def _half_widths(level: float, most: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Half widths of the intervals of 2 to `most` repeats with a deviation of 1."""
    from scipy.stats import t

    n = np.arange(2, most + 1)
    widths: np.ndarray[tuple[int], np.dtype[np.float64]] = t.ppf(0.5 + level / 2, n - 1) / np.sqrt(n)
    return widths
