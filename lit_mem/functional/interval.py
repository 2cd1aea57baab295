"""Confidence intervals of means and shares, from summary statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

Interval: TypeAlias = Callable[[float], tuple[float, float]]
"""Both ends of a metric's confidence interval, by its two-sided level in (0, 1)."""
_WHOLE: Final = 1e-6  # tolerance for a number of units to count as an integer; rounding errors are 1e-10


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of a few measurements, such as one per seed, with its Student's t interval.

    Args:
        values: two or more, finite.
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        The mean and the ends of its interval, in the unit of the values.
    """
    n = len(values)
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = _student_quantile(0.5 + level / 2, n - 1) * error
    return mean, mean - half, mean + half


@lru_cache(maxsize=64)  # a sweep has hundreds of intervals of the same few sizes
def _student_quantile(share: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(share, freedom))


def wilson_interval(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share observed in n trials.

    Args:
        share: in [0, 1].
        n: above 0.
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        Its two ends in [0, 1], with `share` between them; never the same number twice.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # At 0 and 1 an end equals the share, up to rounding.
    low = middle - half if share > 0 else 0.0
    high = middle + half if share < 1 else 1.0
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def clopper_pearson(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share in n independent trials; for 0 of n it is [0, 1 − ((1 − level) / 2)^(1/n)].

    Args:
        share: in [0, 1].
        n: above 0; an effective number need not be whole.
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        Its two ends in [0, 1], with `share` between them; never the same number twice.

    Source: Clopper & Pearson 1934, "The Use of Confidence or Fiducial Limits".

    >>> round(clopper_pearson(0, 300)[1], 4)
    0.0122
    """
    from scipy.special import betaincinv

    tail, seen = (1 - level) / 2, share * n
    low = float(betaincinv(seen, n - seen + 1, tail)) if seen > 0 else 0.0
    high = float(betaincinv(seen + 1, n - seen, 1 - tail)) if seen < n else 1.0
    low, high = (0.0 if math.isnan(low) else low), (1.0 if math.isnan(high) else high)  # below float resolution
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def trials_of_none(high: float, level: float = 0.95) -> int | None:
    """The number of units for a share of 0, recovered from the upper end of its Clopper-Pearson interval.

    Args:
        high: the upper end, in [0, 1].
        level: confidence of the interval.

    Returns:
        n; None if the end matches no integer n, as for unequally weighted texts.

    >>> trials_of_none(clopper_pearson(0, 300)[1])
    300
    """
    if not 0 < high < 1:
        return None
    n = math.log((1 - level) / 2) / math.log1p(-high)
    return round(n) if round(n) > 0 and abs(n - round(n)) < _WHOLE * max(1.0, n) else None
