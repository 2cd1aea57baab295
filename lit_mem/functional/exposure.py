"""Exposure: how early a secret comes when all that could have been inserted are sorted by the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_mem.errors import MetricError


def exposure(score: Tensor, heldout: Tensor) -> Tensor:
    """Exposure of inserted canaries in bits, by their exact rank among those that were not inserted.

    The candidates R are the held-out canaries and the one in question, and its rank is 1 if no other is scored higher:
    log2 |R| − log2 rank. Tied candidates count half, as in an AUROC. Nothing is fitted to the scores, so the figure
    says no more than the ranks do: its highest value, log2 |R|, is "above all held-out canaries", by however much.

    Args:
        score: (N,) float, of inserted canaries; higher = more memorized (Carlini et al. take the log-probability).
        heldout: (H,) float, of canaries made alike and not inserted.

    Returns:
        (N,) float64 in [0, log2(H + 1)]. Not memorized, ranks are uniform, and the mean is `chance_exposure(H)`, not 0.

    Raises:
        MetricError: there is no held-out canary, or a score is not finite.

    Source: Carlini et al. 2019, "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks"
    (arXiv 1802.08232), section 4.3.

    >>> exposure(torch.tensor([9.0, 2.5, 0.0]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 1., 0.], dtype=torch.float64)
    """
    score, others = score.detach().cpu().double(), heldout.detach().cpu().double()
    if score.ndim != 1 or others.ndim != 1 or not len(others):
        raise MetricError(
            f"exposure is a rank among held-out canaries, at least one; got scores {tuple(score.shape)} of inserted "
            f"and {tuple(others.shape)} of held-out ones"
        )
    if not (torch.isfinite(score).all() and torch.isfinite(others).all()):
        raise MetricError("exposure needs scores that are real numbers, and one is not finite")
    others = others.sort().values
    below, at_most = (torch.searchsorted(others, score, right=right) for right in (False, True))
    rank = 1 + (len(others) - at_most) + (at_most - below).double() / 2
    return math.log2(len(others) + 1) - rank.log2()


def chance_exposure(n_heldout: int) -> float:
    """Mean exposure in bits where nothing is memorized: log2 |R| − log2(|R|!) / |R|, which nears log2 e = 1.44.

    Args:
        n_heldout: H, so that |R| = H + 1.

    >>> round(chance_exposure(1), 3), round(chance_exposure(10**6), 3)
    (0.5, 1.443)
    """
    n = n_heldout + 1
    return math.log2(n) - math.lgamma(n + 1) / n / math.log(2)
