"""Min-K% Prob: members have few tokens that surprise the model."""

from __future__ import annotations

from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.lowest import lowest_mean
from lit_mem.errors import check_range
from lit_mem.types import TokenScores


class MinK(Attack):
    """Mean log-probability in nats of the least likely tokens of the example.

    Args:
        share: how many of the example's tokens are averaged, as a share of them, rounded down but at least one.

    Source: Shi et al. 2024, "Detecting Pretraining Data from Large Language Models", section 4.
    """

    def __init__(self, share: float = 0.2) -> None:
        check_range("MinK.share", share, above=0, at_most=1)
        self.share = share

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, at most 0, higher = more member-like."""
        return lowest_mean(scores.logprob, scores.mask, self.share)
