"""Area under the ROC curve of an attack, and its DeLong interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.errors import MetricError


class Auroc(NamedTuple):
    """An AUROC and its confidence interval, all in [0, 1]; 0.5 is no separation."""

    value: float
    low: float
    high: float


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
        raise MetricError(f"{bad} of {len(score)} attack scores are not finite; a score must be a real number")
    members, others = score[member], score[~member]
    if not len(members) or not len(others):
        raise MetricError(f"membership needs both sets: {len(members)} members, {len(others)} non-members")
    return members, others


def auroc(score: Tensor, member: Tensor, level: float = 0.95) -> Auroc:
    """Chance that a random member outscores a random non-member, with its DeLong interval.

    Ranks, so that no scale of score can saturate (torchmetrics' BinaryAUROC squashes scores outside [0, 1]
    through a sigmoid, which ties large log-ratios).

    Args:
        score: (N,) float, any real scale, higher = more member-like.
        member: (N,) bool, True = in the fine-tuning set.
        level: confidence of the two-sided interval.

    Returns:
        The area, ties counted half, and a Wald interval on DeLong's variance, clipped to [0, 1]. With fewer
        than two examples in a set there is no variance to estimate: the interval is all of [0, 1]. Where all
        pairs agree (area 0 or 1, or all ties) the estimated variance is 0, however small the sets.

    Raises:
        MetricError: a set is empty, or a score is not finite.

    Sources: Hanley & McNeil 1982 (area = Mann-Whitney U / pairs); DeLong, DeLong & Clarke-Pearson 1988
    (variance); Sun & Xu 2014 (by midranks, in O(N log N)).

    >>> auroc(torch.tensor([-310.0, -305.0, -320.0]), torch.tensor([True, True, False])).value
    1.0
    """
    from scipy.stats import norm, rankdata

    members, others = checked_classes(score, member)
    m, n = len(members), len(others)
    joint = torch.from_numpy(rankdata(torch.cat([members, others]).numpy()))
    # Placement values: for each member the share of non-members below it, and the reverse.
    placed_members = (joint[:m] - torch.from_numpy(rankdata(members.numpy()))) / n
    placed_others = 1 - (joint[m:] - torch.from_numpy(rankdata(others.numpy()))) / m
    value = placed_members.mean().item()
    if m < 2 or n < 2:
        return Auroc(value, 0.0, 1.0)
    spread = math.sqrt(placed_members.var().item() / m + placed_others.var().item() / n)
    half = float(norm.ppf(0.5 + level / 2)) * spread
    return Auroc(value, max(0.0, value - half), min(1.0, value + half))
