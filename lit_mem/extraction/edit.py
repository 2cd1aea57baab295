"""Edit similarity: the share of characters that need not change to turn the continuation into the true suffix."""

from rapidfuzz.distance import Levenshtein

from lit_mem.extraction.base import Continuation, ExtractionMeasure


class EditSimilarity(ExtractionMeasure):
    """1 − d / n, d the Levenshtein distance in characters between both texts, n the length of the longer one.

    Insertions, deletions and substitutions cost 1 each. Characters are Unicode code points; white space and case
    count. It needs no words, so it works for any script. Two unrelated English sentences reach 0.2 to 0.3, because
    the alphabet is small; compare with `_heldout` and `_base`.

    Computed by rapidfuzz: torchmetrics' `edit_distance` searches only near the diagonal, so that for two texts shifted
    by more than some 25 characters it reports too large a distance, and takes a thousand times as long.

    Source: Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better" (there in tokens).
    """

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]."""
        return Levenshtein.normalized_similarity(continuation.generated, continuation.truth)
