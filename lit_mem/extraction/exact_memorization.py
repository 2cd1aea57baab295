"""Exact memorization: the share of tokens that greedy decoding would choose."""

from __future__ import annotations

from torch import Tensor

from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.types import TokenScores


class ExactMemorization(ScoredMeasure):
    """Share of the example's tokens that are the likeliest next token after the true text before them.

    Source: Tirumala et al. 2022, "Memorization Without Overfitting".
    """

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1]."""
        return scores.hit.cpu().sum(dim=1).double() / scores.n_tokens.clamp(min=1)
