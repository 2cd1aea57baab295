"""Exposure: the rank of a secret among all that could have been inserted, sorted by the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_mem.errors import MetricError


def exposure(score: Tensor, heldout: Tensor) -> Tensor:
    """Exposure of inserted canaries in bits, from their exact rank among those that were not inserted.

    The candidates R are the held-out canaries and the inserted one, whose rank is 1 if no other scores higher:
    log2 |R| − log2 rank. Tied candidates count half, as in an AUROC. Nothing is fitted to the scores, so the exposure
    reflects ranks only: its maximum, log2 |R|, means "above all held-out canaries", by any margin.

    Args:
        score: (N,) float, of inserted canaries; higher = more memorized (Carlini et al. take the log-probability).
        heldout: (H,) float, of canaries from the same generator that were not inserted.

    Returns:
        (N,) float64 in [0, log2(H + 1)]. If nothing is memorized, the mean is `chance_exposure(H)`, not 0.

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
            f"found scores {tuple(score.shape)} of inserted and {tuple(others.shape)} of held-out canaries; expected "
            "two (N,) tensors and at least one held-out canary"
        )
    if not (torch.isfinite(score).all() and torch.isfinite(others).all()):
        raise MetricError("a canary's score is not finite; expected finite scores")
    others = others.sort().values
    below, at_most = (torch.searchsorted(others, score, right=right) for right in (False, True))
    rank = 1 + (len(others) - at_most) + (at_most - below).double() / 2
    return math.log2(len(others) + 1) - rank.log2()


def chance_exposure(n_heldout: int) -> float:
    """Mean exposure in bits if nothing is memorized: log2 |R| − log2(|R|!) / |R|, which tends to log2 e = 1.44.

    Args:
        n_heldout: H, so that |R| = H + 1.

    >>> round(chance_exposure(1), 3), round(chance_exposure(10**6), 3)
    (0.5, 1.443)
    """
    n = n_heldout + 1
    return math.log2(n) - math.lgamma(n + 1) / n / math.log(2)
