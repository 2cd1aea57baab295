"""Min-K%++: Min-K% with log-probabilities standardized by the model's next-token distribution."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.lowest import lowest_mean
from lit_mem.errors import MetricError, check_range
from lit_mem.types import Needs, TokenScores

_LEAST_STD: Final = 1e-4


class MinKPlusPlus(Attack):
    """Mean of the lowest (ℓ_t − μ_t) / σ_t of the example: Min-K% with each token standardized.

    μ_t and σ_t are mean and standard deviation of log p(v | x_<t) over v drawn from p(· | x_<t). (Some code weights the
    vocabulary uniformly, which is another statistic.)

    σ_t is clamped to at least 0.0001 nats. It is 0 if the next token is certain, and if all are equally likely; near
    that, float32 log-probabilities resolve ℓ_t − μ_t only to about 1e-6, and a smaller σ_t would amplify that error.
    The clamp affects only positions where all tokens but one together have a probability below about 1e-9, or where all
    possible tokens are equally likely to four digits; among those a less likely token still scores lower.

    Args:
        share: share of the example's tokens averaged, rounded down, but at least one token.

    Source: Zhang et al. 2025, "Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language
    Models" (arXiv 2404.02936).
    """

    needs = Needs(moments=True)

    def __init__(self, share: float = 0.2) -> None:
        check_range("MinKPlusPlus.share", share, above=0, at_most=1)
        self.share = share

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, in deviations, higher = more member-like.

        Raises:
            MetricError: the scores carry no moments.
        """
        if scores.mean is None or scores.std is None:
            raise MetricError(
                "the Min-K%++ attack needs the moments of the next-token log-probability (`mean` and `std`), but the "
                "module gave none"
            )
        above = scores.logprob.cpu().double() - scores.mean.cpu().double()
        return lowest_mean(above / scores.std.cpu().double().clamp(min=_LEAST_STD), scores.mask, self.share)
