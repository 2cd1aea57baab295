"""The tokens that tuning improved least: for a member, even these improve."""

from __future__ import annotations

from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import deltas
from lit_mem.attacks.lowest import lowest_mean
from lit_mem.errors import check_range
from lit_mem.types import Needs, TokenScores


class DeltaLow(Attack):
    """Mean of the lowest δ_t = ℓ_t − ℓ_t^ref of the example, in nats.

    Tuning raises what a held-out text shares with the training set, and lowers the tokens specific to it; a member has
    no such tokens. This is Min-K% of the change instead of the log-probability.

    Args:
        share: share of the example's tokens averaged, rounded down, but at least one token.

    Source: this project; for the lowest share, Shi et al. 2024 (`MinK`).
    """

    needs = Needs(reference=True)

    def __init__(self, share: float = 0.2) -> None:
        check_range("DeltaLow.share", share, above=0, at_most=1)
        self.share = share

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; exactly 0 while the tuned model equals its reference.

        Raises:
            MetricError: the scores carry no reference.
        """
        return lowest_mean(deltas(scores, "the delta_low attack"), scores.mask, self.share)
