"""Area under the ROC curve of an attack, with an interval from DeLong's variance on the logit scale."""

from __future__ import annotations

import math
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lit_mem.errors import MetricError
from lit_mem.functional.interval import Interval, wilson_interval

_NO_VARIANCE: Final = 1e-28  # below half a pair in a million scores per set, above rounding error


class Auroc(NamedTuple):
    """An AUROC and its confidence interval, all in [0, 1]; 0.5 means no separation."""

    value: float
    low: float
    high: float


class GroupAuroc(NamedTuple):
    """One attack on one subgroup.

    Attributes:
        value: the value that its examples share.
        n_members: number of members.
        n_nonmembers: number of non-members.
        area: the attack's AUROC on them.
    """

    value: str
    n_members: int
    n_nonmembers: int
    area: Auroc


def checked_classes(score: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Split attack scores by set, as float64 on the CPU.

    Args:
        score: (N,) float, any real scale, higher = more member-like.
        member: (N,) bool, True = in the fine-tuning set.

    Returns:
        The members' (M,) and the non-members' (N - M,) scores.

    Raises:
        MetricError: the shapes differ, a set is empty, or a score is not finite.
    """
    if score.ndim != 1 or score.shape != member.shape:
        raise MetricError(f"expected two (N,) tensors, got score {tuple(score.shape)}, member {tuple(member.shape)}")
    score, member = score.detach().cpu().double(), member.detach().cpu().bool()
    if not torch.isfinite(score).all():
        bad = int((~torch.isfinite(score)).sum())
        raise MetricError(f"{bad} of {len(score)} attack scores are not finite; expected finite scores")
    members, others = score[member], score[~member]
    if not len(members) or not len(others):
        raise MetricError(f"found {len(members)} members and {len(others)} non-members; expected at least one of each")
    return members, others


def auroc(score: Tensor, member: Tensor, level: float = 0.95, cluster: Tensor | None = None) -> Auroc:
    """Probability that a random member outscores a random non-member, with a confidence interval.

    Computed from ranks, so large scores cannot saturate (torchmetrics' BinaryAUROC maps scores outside [0, 1] through a
    sigmoid, which ties large log-ratios).

    The interval is logit(A) ± z s / (A (1 − A)), mapped back (delta method), so that it stays inside [0, 1] and is not
    too narrow towards ½ when A is near 1. s² is DeLong's variance V₁ / m + V₀ / n with one added observation per set at
    the maximum variance of a share with mean A, A (1 − A): V₁ becomes ((m − 1) V₁ + A (1 − A)) / m. Small samples miss
    the few scores that matter near 1; without this correction the interval is too narrow (30 against 300 at 0.99: 95 %
    would be 89 %). In large samples it has no effect. If DeLong's variance is 0 (area 0 or 1, or all tied) the interval
    is Wilson's for a share A in min(m, n) trials: the variance of an AUROC is at most A (1 − A) / min(m, n).

    Args:
        score: (N,) float, any real scale, higher = more member-like.
        member: (N,) bool, True = in the fine-tuning set.
        level: confidence of the two-sided interval, in (0, 1).
        cluster: (N,) int, rows with the same number (one document or person) may be correlated; None: independent rows.
            The variance is then Obuchowski's, and m and n count clusters, (Σ size)² / Σ size² if sizes differ.

    Returns:
        The area, ties counted half, and its interval, never of width 0. With fewer than two examples (clusters) in a
        set the variance cannot be estimated and the interval is [0, 1].

    Raises:
        MetricError: a set is empty, a score is not finite, or the shapes differ.

    Sources: Hanley & McNeil 1982 (area = Mann-Whitney U / pairs); DeLong, DeLong & Clarke-Pearson 1988
    (variance); Sun & Xu 2014 (by midranks, in O(N log N)); Obuchowski 1997 (clusters); Pepe 2003, section 5.2.5
    (logit scale); Birnbaum & Klose 1957 (maximum variance); Wilson 1927. The added observation is ours.

    >>> auroc(torch.tensor([-310.0, -305.0, -320.0]), torch.tensor([True, True, False])).value
    1.0
    """
    value, interval = auroc_interval(score, member, cluster)
    return Auroc(value, *interval(level))


def auroc_interval(score: Tensor, member: Tensor, cluster: Tensor | None = None) -> tuple[float, Interval]:
    """The area of `auroc` and its interval as a function of the level, which does not keep the scores.

    Args:
        score: (N,) float, as in `auroc`.
        member: (N,) bool.
        cluster: (N,) int, or None.

    Returns:
        The area in [0, 1], and a function from level to both ends.

    Raises:
        MetricError: a set is empty, a score is not finite, or the shapes differ.
    """
    from scipy.stats import rankdata

    members, others = checked_classes(score, member)
    m, n = len(members), len(others)
    joint = torch.from_numpy(rankdata(torch.cat([members, others]).numpy()))
    # Placement values: for each member the share of non-members below it, and the reverse.
    placed_members = (joint[:m] - torch.from_numpy(rankdata(members.numpy()))) / n
    placed_others = 1 - (joint[m:] - torch.from_numpy(rankdata(others.numpy()))) / m
    value = placed_members.mean().item()
    first, second, shared = _variances(placed_members, placed_others, member, cluster)
    if min(first.units, second.units) < 2:
        return value, lambda level: (0.0, 1.0)
    return value, partial(_interval, value, first, second, shared)


class _Side(NamedTuple):
    """One set's contribution to the variance of an AUROC.

    Attributes:
        variance: variance of the mean placement value.
        units: effective number of scores or clusters; (Σ size)² / Σ size² if sizes differ.
    """

    variance: float
    units: float


def _variances(
    placed_members: Tensor, placed_others: Tensor, member: Tensor, cluster: Tensor | None
) -> tuple[_Side, _Side, float]:
    """Each set's contribution to the variance, and twice the covariance of clusters that have rows in both."""
    m, n = len(placed_members), len(placed_others)
    value = placed_members.mean()
    if cluster is None:
        first, second = (p.var(correction=min(1, len(p) - 1)).item() / len(p) for p in (placed_members, placed_others))
        return _Side(first, m), _Side(second, n), 0.0
    if cluster.shape != member.shape:
        raise MetricError(f"expected (N,) tensors, got member {tuple(member.shape)}, cluster {tuple(cluster.shape)}")
    known, number = torch.unique(cluster.cpu(), return_inverse=True)
    member = member.cpu().bool()
    sums, sides = [], []
    for placed, inside in ((placed_members, number[member]), (placed_others, number[~member])):
        total = torch.zeros(len(known), dtype=torch.float64).index_add_(0, inside, placed - value)
        size = torch.bincount(inside, minlength=len(known)).double()
        k, count = int((size > 0).sum()), len(placed)
        sums.append(total / count)
        spread = (total @ total).item() / count**2 * (k / (k - 1) if k > 1 else 0.0)
        sides.append(_Side(spread, count**2 / (size @ size).item()))
    shared = 2 * len(known) / max(1, len(known) - 1) * (sums[0] @ sums[1]).item()
    return sides[0], sides[1], shared


def _interval(value: float, first: _Side, second: _Side, shared: float, level: float) -> tuple[float, float]:
    """The ends, from each set's contribution to the variance; see `auroc`."""
    from scipy.special import expit, logit
    from scipy.stats import norm

    most = value * (1 - value)
    measured = first.variance + second.variance + shared
    variance = sum(((k - 1) * v + most / k) / k for v, k in (first, second)) + shared
    if most == 0 or min(measured, variance) < _NO_VARIANCE:
        return wilson_interval(value, min(first.units, second.units), level)
    half = float(norm.ppf(0.5 + level / 2)) * math.sqrt(variance) / most
    low, high = float(expit(logit(value) - half)), float(expit(logit(value) + half))
    return min(low, value), max(high, value)
