"""The n-gram memorization score: how much of the true suffix comes back in pieces of a few tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.ngram_hits import checked_sizes


class NgramMemorization(ExtractionMeasure):
    """Share of the true suffix's token n-grams that stand in the generated text; the mean over several n.

    Each n-gram counts as often as it stands in the suffix, and comes back at most as often as it was written: for one n
    this is the recall of ROUGE-n on tokens. Where the suffix has fewer than n tokens, n is its length.

    Source: Slack and Al Moubayed 2025, "Early Detection and Reduction of Memorisation for Domain Adaptation and
    Instruction Tuning" (TACL 13, arXiv 2510.11372), as a summary of the paper has it: the mean fraction of matching
    n-grams between the output and the target, for n of about 4 to 6. The text of the paper could not be read for this:
    that repeated n-grams are counted so, what is done with short suffixes, and the default n are ours.

    Args:
        sizes: the n, in tokens.
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
