"""The t statistic of the change by tuning: an increase weighs more if it is even over the text."""

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

    The paper's attack uses only the mean, which a single token can dominate. A member's increase is spread over its
    tokens; a held-out text increases at set phrases of the domain and decreases elsewhere.

    The deviation is the sample's, with n − 1. For a text of one token it is replaced by |δ|, so that the score is the
    sign of δ. (0.0001 nats)² is added to the variance: differences below that are rounding of float32
    log-probabilities, and would pass for an even increase.

    Source: this project; for the statistic, Student 1908, "The Probable Error of a Mean".
    """

    needs = Needs(reference=True)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; exactly 0 while the tuned model equals its reference.

        Raises:
            MetricError: the scores carry no reference.
        """
        delta, mask = deltas(scores, "the delta_t attack"), scores.mask.cpu()
        n = scores.n_tokens.double()
        mean = delta.sum(dim=1) / n.clamp(min=1)
        about = (delta - mean[:, None]).masked_fill(~mask, 0.0).square().sum(dim=1)
        variance = torch.where(n > 1, about / (n - 1).clamp(min=1), mean.square())
        return mean * n.sqrt() / (variance + _LEAST**2).sqrt()
