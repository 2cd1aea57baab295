"""Longest run of words that two texts share: the paper's measure of extraction."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from lit_mem.functional.words import words


def longest_common_run(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest contiguous run of items common to both; 0 where either is empty."""
    # autojunk would skip items that are frequent in long texts, and so miss runs.
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return matcher.find_longest_match(0, len(left), 0, len(right)).size


def ngram_match_rate(generated: str, truth: str) -> float:
    """Longest contiguous run of words common to both texts, as a share of the words in `truth`.

    Words are those of `lit_mem.functional.words`: what stands between white space, and single characters of scripts
    without spaces.

    Args:
        generated: what the model wrote after the prefix.
        truth: the true suffix; at least one word.

    Returns:
        A number in [0, 1]; 1 where the true suffix stands in the generated text word for word.

    Raises:
        ValueError: `truth` holds no word.

    Source: Savine et al. 2025 (arXiv 2507.21009), prompted generation.

    >>> ngram_match_rate("mild rash after two doses", "severe rash after two weeks")
    0.6
    """
    wanted = words(truth)
    if not wanted:
        raise ValueError("the true suffix holds no word")
    return longest_common_run(words(generated), wanted) / len(wanted)
