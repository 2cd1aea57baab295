"""Exact memorization: the share of tokens that greedy decoding would choose."""

from __future__ import annotations

from torch import Tensor

from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.functional.ends import before_end
from lit_mem.types import TokenScores


class ExactMemorization(ScoredMeasure):
    """Share of the example's tokens that are the greedy choice after the true text before them.

    A text ends before its first end token, as for all extraction measures; in a conversation, each scored turn does.

    Source: Tirumala et al. 2022, "Memorization Without Overfitting".
    """

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1]."""
        read = before_end(scores.mask, scores.ends)
        return (scores.hit.cpu() & read).sum(dim=1).double() / read.sum(dim=1).clamp(min=1)
