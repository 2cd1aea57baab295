"""What is left of a score once what another foretells of it is taken away."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.errors import MetricError


def residual(score: Tensor, foretold: Tensor) -> Tensor:
    """The score less the straight line through it over `foretold` that fits best (least squares).

    A difference takes all of `foretold` away, which adds noise where the two have little to do with each other; this
    takes as much as they have in common: all where they are the same, none where they are unrelated.

    Args:
        score: (N,) finite float.
        foretold: (N,) finite float.

    Returns:
        (N,) float64 of mean 0; exactly 0 where both are the same numbers. Without spread in `foretold` it is the score
        less its mean.

    Raises:
        MetricError: the shapes differ, or a number is not finite.

    >>> residual(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 1.0, 2.0])).tolist()
    [0.5, -1.0, 0.5]
    """
    score, foretold = score.detach().cpu().double(), foretold.detach().cpu().double()
    if score.ndim != 1 or score.shape != foretold.shape:
        raise MetricError(f"expected two (N,) tensors, got {tuple(score.shape)} and {tuple(foretold.shape)}")
    if not (torch.isfinite(score).all() and torch.isfinite(foretold).all()):
        raise MetricError("a score can only be compared with another where both are real numbers, and one is not")
    if torch.equal(score, foretold):  # also where squares underflow, or two sums round differently
        return torch.zeros_like(score)
    y, x = score - score.mean(), foretold - foretold.mean()
    spread = (x * x).sum()
    return y - (x * y).sum() / spread * x if spread > 0 else y
