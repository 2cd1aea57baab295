"""Common beginnings of texts: first words shared by many texts, so that they reveal no single one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

from lit_mem.functional.words import word_places

_LOOKED_AT: Final = 32
"""Characters per word that are searched for the first words of a text."""


def opening(text: str, n_words: int) -> str | None:
    """A text up to the end of its n-th word of letters and digits, left-stripped; None if it has fewer words.

    >>> opening("  A 45-year-old woman", 2), opening("Fever.", 2)
    ('A 45', None)
    """
    whole, most = text.lstrip(), _LOOKED_AT * (n_words + 1)
    start = whole[:most]
    places = word_places(start)
    if len(places) < n_words + (len(whole) > most):  # the last word may be truncated
        return None
    return start[: places[n_words - 1].end()]


def shared_openings(texts: Iterable[str], n_words: int, at_least: int, n_most: int) -> list[str]:
    """The most frequent beginnings of texts, most frequent first; ties in sort order.

    Args:
        texts: any; duplicates count once.
        n_words: number of words in a beginning.
        at_least: minimum number of distinct texts that share it.
        n_most: maximum number of beginnings.

    Returns:
        Beginnings, with the characters between their words; empty if none is shared by enough texts.

    >>> shared_openings(["A man fell.", "A man sat.", "A man sat.", "A dog ran."], n_words=2, at_least=2, n_most=9)
    ['A man']
    """
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    for text in texts if n_most else ():
        found = opening(text, n_words)
        if found is not None:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            if digest not in seen:
                seen.add(digest)
                counts[found] += 1
    shared = [(found, n) for found, n in counts.items() if n >= at_least]
    return [found for found, _ in sorted(shared, key=lambda one: (-one[1], one[0]))[:n_most]]
