"""N-gram hits: the share of positions where greedy decoding reproduces the next few tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.extraction.sizes import checked_sizes
from lit_mem.functional.ends import before_end
from lit_mem.types import TokenScores


class NgramHits(ScoredMeasure):
    """Share of a text's runs of n tokens that greedy decoding reproduces, given the true text before each run.

    The mean over several n. Greedy decoding from a position reproduces the true next n tokens exactly if all n are
    greedy hits, so no token is generated. Runs are reproduced before a whole suffix is: this rises before `exact_rate`
    and `extraction_strength`, which makes it an early warning. A text ends before its first end token, as for all
    extraction measures; in a conversation, runs lie within one scored turn. If no run of scored tokens has n tokens, n
    is the length of the longest.

    Source: the idea of a partial n-gram score that precedes verbatim memorization, and of stopping on it, is that of
    Slack and Al Moubayed 2025, "Early Detection and Reduction of Memorisation for Domain Adaptation and Instruction
    Tuning" (TACL 13, arXiv 2510.11372). The paper itself was not available; according to a summary, their score
    compares what is generated after a prompt, with n of about 4 to 6 (see `NgramMemorization`). This variant, over the
    scoring pass and at every position of a text, is ours.

    Args:
        sizes: values of n, in tokens.
    """

    def __init__(self, sizes: Sequence[int] = (4, 5, 6)) -> None:
        self.sizes = checked_sizes(sizes, "NgramHits.sizes")

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1]."""
        read = before_end(scores.mask, scores.ends)
        hits, lengths = _run_lengths(scores.hit.cpu() & read), _run_lengths(read)
        longest = lengths.amax(dim=1)
        total = torch.zeros(len(read), dtype=torch.float64)
        for size in self.sizes:
            # A run of n tokens ends at each position where at least n consecutive hits end.
            n = longest.clamp(min=1, max=size)[:, None]
            total += (hits >= n).sum(dim=1).double() / (lengths >= n).sum(dim=1).clamp(min=1)
        return total / len(self.sizes)


def _run_lengths(there: Tensor) -> Tensor:
    """(B, T) int64: length of the run of True values that ends at each position; 0 where it is False."""
    upto = there.long().cumsum(dim=1)
    before = torch.where(there, 0, upto).cummax(dim=1).values
    return (upto - before) * there
