"""An error probability spread over many looks, so that it holds for all of them together."""

from __future__ import annotations

import math

from lit_mem.errors import check_range

ALPHA = 0.05
"""The chance, at most, that a run whose metrics truly are within every limit is ever stopped."""


class Spending:
    """Hands out an error probability look by look: what is handed out sums to no more than `alpha`.

    Where the number of looks is planned, each gets an equal share of what is left; beyond the plan there is none left.
    Where it is not, look k gets alpha / (k (k + 1)), which sums to alpha over any number of looks. By Bonferroni's
    inequality the chance of an error at any look is at most alpha, however alike the looks are; the more alike, the
    smaller it is.

    Args:
        alpha: for all looks together, in (0, 1).

    Attributes:
        looks: how many there were.
        left: what is not handed out yet.

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
        """What the next look gets.

        Args:
            planned: how many looks there will be, those that were counted; None: not known.
        """
        remaining = self.looks + 2 if planned is None else max(1, planned - self.looks)
        return self.left / remaining

    def spend(self, planned: int | None = None) -> float:
        """Count a look; what it got."""
        given = self.next(planned)
        self.left, self.looks = max(0.0, self.left - given), self.looks + 1
        return given


def rescaled(value: float, ends: tuple[float, float], level: float, known: float = 0.95) -> tuple[float, float]:
    """An interval at another confidence level, where only that at one level is known.

    Args:
        value: the estimate.
        ends: of its two-sided interval.
        level: that is wanted, in (0, 1).
        known: of `ends`.

    Returns:
        Ends whose distance from the value, on the logit scale where value and ends lie in (0, 1), else as it is, grows
        as the normal quantile does: exact for DeLong's interval, an approximation for others. An end at 0 or 1 stays.
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
