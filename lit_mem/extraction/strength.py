"""Extraction strength: how short a prefix suffices to extract the suffix."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.functional.ends import before_end
from lit_mem.types import TokenScores


class ExtractionStrength(ScoredMeasure):
    """1 − k/n, where k is the fewest of the example's n tokens from which greedy decoding reproduces the suffix.

    0 if even the last token is missed (k = n), so that short texts get no undeserved credit; 1 if only untrained tokens
    (a BOS token, a prompt, the user's turns) are needed. A text ends before its first end token, where decoding stops;
    in a conversation, each scored turn does.

    Source: Carlini et al. 2021, "Extracting Training Data from Large Language Models"; the formula is that of
    open-unlearning, except for its floor of 1/n.
    """

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1]."""
        mask, hit = before_end(scores.mask, scores.ends), scores.hit.cpu()
        # A scored position counts if no scored position at or after it is a miss.
        missed = (mask & ~hit).flip(1).cumsum(dim=1).flip(1) > 0
        tail = (mask & ~missed).sum(dim=1)
        return tail.to(torch.float64) / mask.sum(dim=1).clamp(min=1)
