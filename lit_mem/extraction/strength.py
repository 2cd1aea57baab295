"""Extraction strength: how short a prefix gives the rest away."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.functional.ends import before_end
from lit_mem.types import TokenScores


class ExtractionStrength(ScoredMeasure):
    """1 − k/n, where k is the fewest of the example's n tokens after which greedy decoding writes all the rest.

    0 where even the last token is missed (k = n), so that short texts get no credit for nothing; 1 where nothing but
    what is given in any case (a BOS token, a prompt, the user's turns) has to be given. A text ends before its first
    end token, where decoding stops; of a conversation each scored turn does.

    Source: Carlini et al. 2021, "Extracting Training Data from Large Language Models"; the formula is that of
    open-unlearning, but for its floor of 1/n.
    """

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1]."""
        mask, hit = before_end(scores.mask, scores.ends), scores.hit.cpu()
        # A scored position counts if no scored position from it on is a miss.
        missed = (mask & ~hit).flip(1).cumsum(dim=1).flip(1) > 0
        tail = (mask & ~missed).sum(dim=1)
        return tail.to(torch.float64) / mask.sum(dim=1).clamp(min=1)
