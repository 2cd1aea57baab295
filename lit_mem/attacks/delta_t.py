"""The t statistic of what tuning changed: a rise counts for more where it is even over the text."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import deltas
from lit_mem.types import Needs, TokenScores

_LEAST: Final = 1e-4


class DeltaT(Attack):
    """Student's t statistic of δ_t = ℓ_t − ℓ_t^ref over the n scored tokens: √n · mean(δ) / sd(δ).

    The paper's attack takes the mean alone, which one token can decide. A member's rise is spread over its tokens; a
    held-out text rises where the domain's set phrases stand and falls elsewhere.

    The deviation is that of the sample, with n − 1. A text of one token has none; there the deviation is |δ|, so that
    the score is the sign of δ. (0.0001 nats)² is added to the variance: below that, float32 log-probabilities resolve
    nothing, and their rounding would pass for an even rise.

    Source: this project; of the statistic, Student 1908, "The Probable Error of a Mean".
    """

    needs = Needs(reference=True)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; exactly 0 while the tuned model still is its reference.

        Raises:
            MetricError: the scores carry no reference.
        """
        delta, mask = deltas(scores, "the delta_t attack"), scores.mask.cpu()
        n = scores.n_tokens.double()
        mean = delta.sum(dim=1) / n.clamp(min=1)
        about = (delta - mean[:, None]).masked_fill(~mask, 0.0).square().sum(dim=1)
        variance = torch.where(n > 1, about / (n - 1).clamp(min=1), mean.square())
        return mean * n.sqrt() / (variance + _LEAST**2).sqrt()
