"""The n-gram memorization score: the share of the true suffix's n-grams that are generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.sizes import checked_sizes


class NgramMemorization(ExtractionMeasure):
    """Share of the true suffix's token n-grams that occur in the generated text; the mean over several n.

    Each n-gram counts as often as it occurs in the suffix, and is matched at most as often as it was generated: for one
    n this is the recall of ROUGE-n on tokens. If the suffix has fewer than n tokens, n is its length.

    Source: Slack and Al Moubayed 2025, "Early Detection and Reduction of Memorisation for Domain Adaptation and
    Instruction Tuning" (TACL 13, arXiv 2510.11372), according to a summary of the paper: the mean fraction of matching
    n-grams between the output and the target, for n of about 4 to 6. The paper itself was not available: the counting
    of repeated n-grams, the handling of short suffixes, and the default n are ours.

    Args:
        sizes: values of n, in tokens.
    """

    def __init__(self, sizes: Sequence[int] = (4, 5, 6)) -> None:
        self.sizes = checked_sizes(sizes, "NgramMemorization.sizes")

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]."""
        shares = []
        for size in self.sizes:
            n = min(size, len(continuation.true_ids))
            wanted, written = _ngrams(continuation.true_ids, n), _ngrams(continuation.generated_ids, n)
            shares.append((wanted & written).total() / wanted.total())
        return sum(shares) / len(shares)


def _ngrams(ids: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
