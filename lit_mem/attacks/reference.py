"""The paper's attack: the log-likelihood ratio of the tuned model and the frozen reference."""

from __future__ import annotations

from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import deltas
from lit_mem.types import Needs, TokenScores


class ReferenceRatio(Attack):
    """Log-likelihood ratio log p_tuned(x) − log p_reference(x) in nats, by default per token: (1/n) Σ (ℓ_t − ℓ_t^ref).

    Higher means member. Papers in which a ratio below the threshold means member use p_ref / p_tuned.

    Args:
        normalize: divide by the number of tokens; False keeps the sum, which favours long texts.

    Sources: Carlini et al. 2021; Mireshghallah et al. 2022; Savine et al. 2025 (arXiv 2507.21009).
    """

    needs = Needs(reference=True)

    def __init__(self, normalize: bool = True) -> None:
        self.normalize = normalize

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64; exactly 0 for every example while the tuned model equals its reference.

        Raises:
            MetricError: the scores carry no reference.
        """
        difference = deltas(scores, "the reference attack").sum(dim=1)
        return difference / scores.n_tokens.clamp(min=1) if self.normalize else difference
