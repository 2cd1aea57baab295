"""The paper's extraction measure."""

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.functional.ngram import ngram_match_rate


class NgramRate(ExtractionMeasure):
    """Longest contiguous run of words common to generated text and true suffix, as a share of the suffix's words.

    Source: Savine et al. 2025 (arXiv 2507.21009).
    """

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]."""
        return ngram_match_rate(continuation.generated, continuation.truth)
