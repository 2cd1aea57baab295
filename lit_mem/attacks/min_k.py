"""Min-K% Prob: members have few tokens with a very low probability."""

from __future__ import annotations

from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import reference_of
from lit_mem.attacks.lowest import lowest_mean
from lit_mem.errors import check_range
from lit_mem.types import Needs, TokenScores


class MinK(Attack):
    """Mean log-probability in nats of the least likely tokens of the example.

    Args:
        share: share of the example's tokens averaged, rounded down, but at least one token.
        calibrated: subtract the same mean under the frozen reference, over its own least likely tokens.

    Source: Shi et al. 2024, "Detecting Pretraining Data from Large Language Models", section 4.
    """

    def __init__(self, share: float = 0.2, calibrated: bool = False) -> None:
        check_range("MinK.share", share, above=0, at_most=1)
        self.share, self.calibrated = share, calibrated
        self.needs = Needs(reference=calibrated)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; at most 0 unless `calibrated`.

        Raises:
            MetricError: `calibrated`, and the scores carry no reference.
        """
        lowest = lowest_mean(scores.logprob, scores.mask, self.share)
        if not self.calibrated:
            return lowest
        reference = reference_of(scores, "the calibrated Min-K% attack")
        return lowest - lowest_mean(reference, scores.mask, self.share)
