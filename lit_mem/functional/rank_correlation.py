"""Spearman's rank correlation: whether two quantities of the same examples increase together, whatever their scales."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.errors import MetricError


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Pearson's correlation of the ranks, ties counted as the mean of the ranks that they span.

    No distribution is assumed, and any increasing transformation of either side leaves it unchanged: perplexity and
    loss give the same value.

    Args:
        a: (N,) real numbers, any scale.
        b: (N,) real numbers, any scale.

    Returns:
        A number in [-1, 1] over the rows where both are finite; 1: the same order, -1: the reverse. None if undefined:
        with fewer than 3 such rows, or if either side is constant.

    Raises:
        MetricError: the shapes differ, or are not (N,).

    Source: Spearman 1904, "The Proof and Measurement of Association between Two Things"; midranks as in scipy's
    spearmanr.

    >>> spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 10.0, 1000.0, 100.0]))
    0.8
    """
    from scipy.stats import rankdata

    if a.ndim != 1 or a.shape != b.shape:
        raise MetricError(f"expected two (N,) tensors, got {tuple(a.shape)} and {tuple(b.shape)}")
    left, right = a.detach().cpu().double(), b.detach().cpu().double()
    both = left.isfinite() & right.isfinite()
    if both.sum() < 3:
        return None
    # Doubled, midranks and their mean are integers: the sums below are exact, and a constant side gives 0.
    ranks = [torch.from_numpy(2 * rankdata(side[both].numpy())) for side in (left, right)]
    x, y = (rank - (int(both.sum()) + 1) for rank in ranks)
    spread = ((x @ x) * (y @ y)).sqrt()
    if spread == 0:
        return None
    return min(1.0, max(-1.0, ((x @ y) / spread).item()))
