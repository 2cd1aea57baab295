"""Alpha spending: an error probability spread over many looks, so that it holds for all of them together."""

from __future__ import annotations

import math

from lit_mem.errors import check_range

ALPHA = 0.05
"""Maximum probability that a run whose true metrics are within every limit is ever stopped."""


class Spending:
    """Allocates an error probability look by look; the allocations sum to at most `alpha`.

    If the number of looks is planned, each gets an equal share of what is left; looks beyond the plan get none.
    Otherwise look k gets alpha / (k (k + 1)), which sums to alpha over any number of looks. By Bonferroni's inequality
    the probability of an error at any look is at most alpha, however correlated the looks are; the higher the
    correlation, the smaller it is.

    Args:
        alpha: error probability for all looks together, in (0, 1).

    Attributes:
        looks: number of looks so far.
        left: the error probability not allocated yet.

    Source: alpha spending, Lan & DeMets 1983, "Discrete Sequential Boundaries for Clinical Trials".

    >>> spending = Spending(0.05)
    >>> round(spending.next(planned=5), 10), round(spending.spend(planned=5), 10), round(spending.next(planned=5), 10)
    (0.01, 0.01, 0.01)
    """

    def __init__(self, alpha: float = ALPHA) -> None:
        check_range("alpha", alpha, above=0, below=1)
        self.alpha = self.left = alpha
        self.looks = 0

    def next(self, planned: int | None = None) -> float:
        """The error probability of the next look.

        Args:
            planned: total number of looks, including past ones; None: unknown.
        """
        remaining = self.looks + 2 if planned is None else max(1, planned - self.looks)
        return self.left / remaining

    def spend(self, planned: int | None = None) -> float:
        """Count a look; return its error probability."""
        given = self.next(planned)
        self.left, self.looks = max(0.0, self.left - given), self.looks + 1
        return given


def rescaled(value: float, ends: tuple[float, float], level: float, known: float = 0.95) -> tuple[float, float]:
    """An interval converted to another confidence level.

    Args:
        value: the estimate.
        ends: ends of its two-sided interval.
        level: target level, in (0, 1).
        known: level of `ends`.

    Returns:
        Ends whose distance from the value, on the logit scale if value and ends are in (0, 1), scales with the normal
        quantile: exact for DeLong's interval, an approximation for others. An end at 0 or 1 is unchanged.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    factor = float(norm.ppf(0.5 + level / 2) / norm.ppf(0.5 + known / 2))
    found = []
    for end in ends:
        if not math.isfinite(factor):
            found.append(math.copysign(math.inf, end - value) if end != value else value)
        elif 0 < value < 1 and 0 < end < 1:
            found.append(float(expit(logit(value) + factor * (logit(end) - logit(value)))))
        elif end in (0, 1):
            found.append(end)
        else:
            found.append(value + factor * (end - value))
    return found[0], found[1]
