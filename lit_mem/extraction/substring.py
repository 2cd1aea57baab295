"""Longest piece of the true suffix that was generated, character for character."""

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.functional.substring import longest_common_substring


class LongestCommonSubstring(ExtractionMeasure):
    """Longest contiguous run of characters common to generated text and true suffix.

    Characters are Unicode code points, white space and case count, and no words are needed: it serves any script.
    Unlike `NgramRate` it also sees copied parts of words, so a short run means nothing: any two sentences of one
    language share a few characters in a row.

    Args:
        share: divide by the characters of the true suffix. False gives the run's length, which tells a long leak from
            a whole short suffix.
    """

    def __init__(self, share: bool = True) -> None:
        self.share = share

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1], or a count of characters."""
        run = longest_common_substring(continuation.generated, continuation.truth)
        return run / len(continuation.truth) if self.share else float(run)
