"""Exact extraction: the whole suffix, token for token."""

from lit_mem.extraction.base import Continuation, ExtractionMeasure


class ExactMatch(ExtractionMeasure):
    """1 if the whole true suffix was generated token for token, else 0; its mean is the exact extraction rate.

    Source: Carlini et al. 2023, "Quantifying Memorization Across Neural Language Models", definition 3.1.
    """

    def __call__(self, continuation: Continuation) -> float:
        """1.0 or 0.0."""
        return float(continuation.generated_ids == continuation.true_ids)
