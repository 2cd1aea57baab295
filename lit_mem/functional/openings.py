"""How texts begin: the first words that many of them share, which give no single one away."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

from lit_mem.functional.words import word_places

_LOOKED_AT: Final = 32
"""Characters a word in which the first words of a text are looked for."""


def opening(text: str, n_words: int) -> str | None:
    """A text up to the end of its n-th word of letters and digits, without white space in front; None: it has fewer.

    >>> opening("  A 45-year-old woman", 2), opening("Fever.", 2)
    ('A 45', None)
    """
    whole, most = text.lstrip(), _LOOKED_AT * (n_words + 1)
    start = whole[:most]
    places = word_places(start)
    if len(places) < n_words + (len(whole) > most):  # the last word seen may go on
        return None
    return start[: places[n_words - 1].end()]


def shared_openings(texts: Iterable[str], n_words: int, at_least: int, n_most: int) -> list[str]:
    """The most frequent beginnings of texts, the most frequent first, and in their own order where two are as frequent.

    Args:
        texts: any; copies of one count once.
        n_words: how many words a beginning has.
        at_least: how many different texts must share it.
        n_most: how many beginnings at most.

    Returns:
        Beginnings with what stands between their words; empty where none is shared by so many.

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
