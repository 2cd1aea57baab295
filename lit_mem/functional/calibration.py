"""The residual of a score after a linear fit on another score."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.errors import MetricError


def residual(score: Tensor, predictor: Tensor) -> Tensor:
    """The residual of the least-squares line of `score` on `predictor`.

    A plain difference subtracts all of `predictor`, which adds noise if the two are weakly related. The residual
    subtracts only the part explained by it: everything if the two are equal, nothing if they are unrelated.

    Args:
        score: (N,) finite float.
        predictor: (N,) finite float.

    Returns:
        (N,) float64 of mean 0; exactly 0 if both are equal. If `predictor` is constant, the score minus its mean.

    Raises:
        MetricError: the shapes differ, or a number is not finite.

    >>> residual(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 1.0, 2.0])).tolist()
    [0.5, -1.0, 0.5]
    """
    score, predictor = score.detach().cpu().double(), predictor.detach().cpu().double()
    if score.ndim != 1 or score.shape != predictor.shape:
        raise MetricError(f"expected two (N,) tensors, got {tuple(score.shape)} and {tuple(predictor.shape)}")
    if not (torch.isfinite(score).all() and torch.isfinite(predictor).all()):
        raise MetricError("a score is not finite; expected finite scores")
    if torch.equal(score, predictor):  # also where squares underflow, or two sums round differently
        return torch.zeros_like(score)
    y, x = score - score.mean(), predictor - predictor.mean()
    spread = (x * x).sum()
    return y - (x * y).sum() / spread * x if spread > 0 else y
