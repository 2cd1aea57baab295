"""Means, with intervals that do not trust a small sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

from torch import Tensor

from lit_mem.errors import MetricError

Interval: TypeAlias = Callable[[float], tuple[float, float]]
"""Both ends of a metric's confidence interval, by its two-sided level in (0, 1)."""


class Mean(NamedTuple):
    """A mean and its confidence interval, all in [0, 1]."""

    value: float
    low: float
    high: float


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of a few measurements, such as one a seed, and Student's t interval of it.

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
    """Wilson's score interval of a share seen in n trials.

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
    # At 0 and 1 an end is the share itself, but for rounding.
    low = middle - half if share > 0 else 0.0
    high = middle + half if share < 1 else 1.0
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def rate_interval(values: Tensor) -> tuple[float, Interval]:
    """The mean of `mean_interval` and its interval at any level, for which none of the values are kept.

    Args:
        values: (N,) float in [0, 1], at least one.

    Returns:
        The mean, and what gives both ends by the level.

    Raises:
        MetricError: there are no values, or one is not in [0, 1].
    """
    mean = mean_interval(values).value
    return mean, partial(wilson_interval, mean, len(values))


def mean_interval(values: Tensor, level: float = 0.95) -> Mean:
    """Mean of numbers in [0, 1], with Wilson's interval as if it were the share of as many trials.

    No variable in [0, 1] of mean p varies more than one that is 0 or 1, whose variance is p (1 − p); so the interval
    is wider than need be, the more so the less the values are 0 or 1. Unlike mean ± deviation it is never of width 0:
    0 of 12 extracted leaves up to 24 % possible.

    Args:
        values: (N,) float in [0, 1], at least one.
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        The mean and the ends of its interval.

    Raises:
        MetricError: there are no values, or one is not in [0, 1].

    Sources: Wilson 1927 (interval); Bhatia & Davis 2000, "A Better Bound on the Variance" (the bound p (1 − p)).

    >>> import torch
    >>> round(mean_interval(torch.zeros(12)).high, 3)
    0.242
    """
    values = values.detach().cpu().double()
    if values.ndim != 1 or not len(values):
        raise MetricError(f"a mean needs an (N,) tensor with at least one value, got {tuple(values.shape)}")
    outside = ~((values >= 0) & (values <= 1))  # NaN is outside too
    if outside.any():
        raise MetricError(
            f"{int(outside.sum())} of {len(values)} values are not in [0, 1]: {values[outside][0].item()}"
        )
    # All equal values can have a mean that is a rounding error away from them, and above 1.
    mean = min(max(values.mean().item(), values.min().item()), values.max().item())
    return Mean(mean, *wilson_interval(mean, len(values), level))
