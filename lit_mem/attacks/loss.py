"""The loss attack: members have a low loss."""

from __future__ import annotations

from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.likelihood import mean_logprob
from lit_mem.types import TokenScores


class Loss(Attack):
    """Mean log-probability of the example's tokens in nats, (1/n) Σ ℓ_t: the negative of its loss.

    Source: Yeom et al. 2018, "Privacy Risk in Machine Learning", section 3.
    """

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, at most 0, higher = more member-like."""
        return mean_logprob(scores)
