"""Longest common substring of generated text and true suffix."""

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.functional.substring import longest_common_substring


class LongestCommonSubstring(ExtractionMeasure):
    """Longest contiguous run of characters common to generated text and true suffix.

    Characters are Unicode code points; white space and case count. It needs no words, so it works for any script.
    Unlike `NgramRate` it also matches parts of words, so a short run means little: any two sentences of one language
    share a few consecutive characters.

    Args:
        share: divide by the length of the true suffix. False gives the run's length, which distinguishes a long leak
            from a short suffix extracted whole.
    """

    def __init__(self, share: bool = True) -> None:
        self.share = share

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1], or a count of characters."""
        run = longest_common_substring(continuation.generated, continuation.truth)
        return run / len(continuation.truth) if self.share else float(run)
