"""Longest run of words common to two texts: the paper's extraction measure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from lit_mem.functional.words import words


def longest_common_run(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest contiguous run of items common to both; 0 if either is empty."""
    # autojunk skips items that are frequent in long texts, and so would miss runs.
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return matcher.find_longest_match(0, len(left), 0, len(right)).size


def ngram_match_rate(generated: str, truth: str) -> float:
    """Longest contiguous run of words common to both texts, as a share of the words in `truth`.

    Words are those of `lit_mem.functional.words`: separated by white space, or single characters of scripts without
    spaces.

    Args:
        generated: what the model wrote after the prefix.
        truth: the true suffix; at least one word.

    Returns:
        A number in [0, 1]; 1 if the generated text contains the true suffix word for word.

    Raises:
        ValueError: `truth` has no words.

    Source: Savine et al. 2025 (arXiv 2507.21009), prompted generation.

    >>> ngram_match_rate("mild rash after two doses", "severe rash after two weeks")
    0.6
    """
    wanted = words(truth)
    if not wanted:
        raise ValueError("the true suffix has no words; expected at least one")
    return longest_common_run(words(generated), wanted) / len(wanted)
