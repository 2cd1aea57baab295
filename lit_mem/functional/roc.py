"""The ROC curve of an attack, and its true-positive rate at low false-positive rates."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from lit_mem.functional.auroc import checked_classes
from lit_mem.functional.interval import Interval

_SPENT: Final = 0.7  # share of the tail spent on the threshold


def roc_curve(score: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """False- and true-positive rate at every distinct threshold, from (0, 0) to (1, 1).

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.

    Returns:
        (K,) float64 false-positive rates, ascending, and the (K,) true-positive rates at the same points. Tied scores
        share one point.

    Raises:
        MetricError: a set is empty, or a score is not finite.
    """
    from sklearn import metrics

    members, others = checked_classes(score, member)
    label = torch.cat([torch.ones(len(members)), torch.zeros(len(others))])
    fpr, tpr, _ = metrics.roc_curve(label.numpy(), torch.cat([members, others]).numpy(), drop_intermediate=False)
    return torch.from_numpy(fpr), torch.from_numpy(tpr)


def tpr_at_fpr(score: Tensor, member: Tensor, max_fpr: float) -> float | None:
    """Highest true-positive rate among thresholds whose false-positive rate is at most `max_fpr`.

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.
        max_fpr: maximum false-positive rate, in (0, 1).

    Returns:
        The rate in [0, 1], or None if it cannot be measured: with fewer than 1 / `max_fpr` non-members the
        smallest false-positive rate above 0 already exceeds `max_fpr`.

    Raises:
        MetricError: a set is empty, or a score is not finite.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", section IV.
    """
    members, others = checked_classes(score, member)
    # The product may be a rounding error below a whole number, as 49 x (1 / 49) is.
    allowed = math.floor(len(others) * max_fpr + 1e-9)
    if not allowed:
        return None
    threshold = others.sort(descending=True).values[allowed]  # the first non-member that may not be above it
    return int((members > threshold).sum()) / len(members)


def tpr_interval(score: Tensor, member: Tensor, max_fpr: float) -> Interval:
    """The interval of `tpr_at_fpr`, for the population's true-positive rate at this false-positive rate.

    The threshold is itself estimated, from the few non-members above it, so the interval covers both errors and is
    valid for any scores. The number of n non-members above the true threshold is binomial. For the lower end, j is the
    largest number such that fewer than j lie above it with probability at most 0.7 of the tail (1 − level) / 2; the end
    is the Clopper-Pearson bound for the members above the j-th highest non-member, at the remaining tail. If not even j
    = 1 stays within the tail, the end is 0: with 300 non-members no threshold is certain to stay within 0.01, with 368
    one is, at 95 %. The upper end mirrors this: the smallest j reached with probability at most 0.7 of the tail.

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.
        max_fpr: maximum false-positive rate, in (0, 1).

    Returns:
        A function from level to both ends in [0, 1], with the rate of `tpr_at_fpr` between them.

    Raises:
        MetricError: a set is empty, or a score is not finite.

    Sources: Hilgers 1991, "Distribution-free confidence bounds for ROC curves" (order statistics of one set, binomial
    bounds of the other); Clopper & Pearson 1934. The split of the tail is ours: if s of it is spent on the threshold,
    (tail − s) / (1 − s) remains for the members, since scores exist for which exactly that is missed. Of 0.3, 0.5, 0.7
    and 0.9 of the tail, 0.7 gave the narrowest intervals in most of 15 simulated settings.
    """
    members, others = checked_classes(score, member)
    others = others.sort().values
    # For each member the number of non-members with an equal or higher score.
    above = (len(others) - torch.searchsorted(others, members)).sort().values
    n, m, allowed = len(others), len(members), math.floor(len(others) * max_fpr + 1e-9)

    def found(j: int) -> int:
        """Members with fewer than j non-members above them."""
        return int(torch.searchsorted(above, j))

    def interval(level: float) -> tuple[float, float]:
        from scipy.special import betaincinv
        from scipy.stats import binom

        tail, seen = (1 - level) / 2, found(allowed + 1) / m
        j = int(binom.ppf(_SPENT * tail, n, max_fpr))  # binom.cdf(j - 1) is below that, unless j is 0
        spent = float(binom.cdf(max(j, 1) - 1, n, max_fpr))
        count, low = found(max(j, 1)), 0.0
        if count and spent < tail:
            low = float(betaincinv(count, m - count + 1, (tail - spent) / (1 - spent)))
        j = int(binom.isf(_SPENT * tail, n, max_fpr)) + 1  # binom.sf(j - 1) is at most that
        spent = float(binom.sf(j - 1, n, max_fpr))
        count, high = found(j), 1.0
        if count < m:
            high = float(betaincinv(count + 1, m - count, 1 - (tail - spent) / (1 - spent)))
        return min(low, seen), max(high, seen)

    return interval


def best_balanced_accuracy(score: Tensor, member: Tensor) -> float:
    """Highest balanced accuracy, (TPR + 1 − FPR) / 2, among all thresholds.

    The membership advantage, TPR − FPR, at the same threshold is twice this, minus 1. The threshold is chosen on the
    examples that it is evaluated on, so the value is optimistic: with few examples it is above 0.5 by chance.

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.

    Returns:
        A number in [0.5, 1]; 0.5 = no threshold beats guessing, as when all scores are tied.

    Raises:
        MetricError: a set is empty, or a score is not finite.

    Source: Yeom et al. 2018, "Privacy Risk in Machine Learning", definition 4 (advantage).

    >>> import torch
    >>> best_balanced_accuracy(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([True, True, False, False]))
    0.75
    """
    members, others = (scores.sort().values for scores in checked_classes(score, member))
    thresholds = torch.cat([members, others])

    def rate(scores: Tensor) -> Tensor:
        return (len(scores) - torch.searchsorted(scores, thresholds)).double() / len(scores)

    tpr, fpr = rate(members), rate(others)
    return max(0.5, float((tpr + 1 - fpr).max() / 2))
