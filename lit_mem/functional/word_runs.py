"""Find word runs of a few texts in a large corpus, which is streamed once and never held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from lit_mem.functional.substring import Substrings
from lit_mem.functional.words import words

Array = np.ndarray[Any, Any]

_AT_ONCE: Final = 2_000_000
"""Characters of the corpus per chunk, rounded up to the end of a text."""


@dataclass(frozen=True)
class Found:
    """Which word runs of the few texts occur in a corpus.

    Attributes:
        there: (G,) bool, which runs of k words occur in it.
        longest: words of the longest run, all of whose runs of k words are wanted; 0 if there is none.
        hit: digests of the corpus texts that contain a wanted run of k words.
    """

    there: Array
    longest: int = 0
    hit: frozenset[bytes] = field(default_factory=frozenset)

    def __or__(self, other: Found) -> Found:
        """The union over both corpora."""
        return Found(self.there | other.there, max(self.longest, other.longest), self.hit | other.hit)


class WordRuns:
    """All runs of k words of a few texts, to search for in many others.

    The few texts are indexed, not the corpus: memory depends only on the few, and time is linear in the corpus. Words
    are those of `lit_mem.functional.words`, case and punctuation included. Only corpus words that occur in the few
    texts are considered; runs of k of these are found by a 64-bit hash, and each match is verified.

    Args:
        texts: the few texts.
        k: words per run.

    Attributes:
        n_words: number of words in the few texts.
        n_runs: G, number of distinct runs of k words in them.
    """

    def __init__(self, texts: Sequence[str], k: int) -> None:
        self.k = k
        split = [words(text) for text in texts]
        self.n_words = sum(map(len, split))
        self._number = {word: n for n, word in enumerate(dict.fromkeys(w for one in split for w in one), start=1)}
        self._sequence = self._numbers(split)
        self._starts = _starts(self._sequence, k)
        # The distinct runs, sorted by hash, and which one begins at each position.
        hashes = _hashes(self._sequence, self._starts, k)
        self._hashes, first, self._run_at = np.unique(hashes, return_index=True, return_inverse=True)
        self._runs = self._sequence[self._starts[first][:, None] + np.arange(k)]
        self.n_runs = len(self._runs)
        self._pieces: Substrings | None = None

    def _numbers(self, split: Iterable[Sequence[str]]) -> Array:
        """The words of some texts as numbers, with a 0 after each text; 0 for words not in the few texts."""
        found: list[int] = []
        for one in split:
            found += [self._number.get(word, 0) for word in one]
            found.append(0)
        return np.array(found, np.int64)

    def nowhere(self) -> Array:
        """(G,) bool, all False."""
        return np.zeros(self.n_runs, bool)

    def covered(self, wanted: Array) -> int:
        """Number of words of the few texts inside a wanted run of k words, (G,) bool; each counts once."""
        edges = np.zeros(len(self._sequence) + 1, np.int64)
        starts = self._starts[wanted[self._run_at]]
        np.add.at(edges, starts, 1)
        np.add.at(edges, starts + self.k, -1)
        return int((edges.cumsum() > 0).sum())

    def find(self, corpus: Iterable[str], wanted: Array | None = None) -> Found:
        """Search a corpus.

        Args:
            corpus: its texts, read once, in chunks.
            wanted: (G,) bool, the runs for `longest` and `hit`; None: no run.
        """
        found, wanted = Found(self.nowhere()), self.nowhere() if wanted is None else wanted
        for texts in _portions(corpus) if self.n_runs else ():
            found |= self._find(texts, wanted, found.longest)
        return found

    def _find(self, texts: Sequence[str], wanted: Array, longest: int) -> Found:
        split = [words(text) for text in texts]
        numbers = self._numbers(split)
        at, run = self._matches(numbers)
        there = self.nowhere()
        there[run] = True
        at = at[wanted[run]]
        ends = np.cumsum([len(one) + 1 for one in split])
        hit = frozenset(_digest(texts[i]) for i in np.unique(np.searchsorted(ends, at, side="right")).tolist())
        for stretch in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else ():
            if len(stretch) + self.k - 1 > longest:
                longest = max(longest, self._longest_common(numbers[stretch[0] : stretch[-1] + self.k].tolist()))
        return Found(there, longest, hit)

    def _longest_common(self, piece: list[int]) -> int:
        if self._pieces is None:
            self._pieces = Substrings(self._sequence.tolist())
        return self._pieces.longest_in(piece)

    def _matches(self, numbers: Array) -> tuple[Array, Array]:
        """Ascending start positions of runs that occur in the few texts, and the indices of these runs."""
        starts = _starts(numbers, self.k)
        hashes = _hashes(numbers, starts, self.k)
        place = np.searchsorted(self._hashes, hashes).clip(max=self.n_runs - 1)
        alike = np.flatnonzero(self._hashes[place] == hashes)
        at, run = starts[alike], place[alike]
        true = (self._runs[run] == numbers[at[:, None] + np.arange(self.k)]).all(axis=1)
        return at[true], run[true]


def _portions(corpus: Iterable[str]) -> Iterator[list[str]]:
    """The texts, in chunks."""
    some, size = list[str](), 0
    for text in corpus:
        some.append(text)
        size += len(text)
        if size >= _AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _starts(numbers: Array, k: int) -> Array:
    """(S,) start positions of runs of k numbers without a 0."""
    zeros = np.concatenate([[0], (numbers == 0).cumsum()])
    return np.flatnonzero(zeros[k:] == zeros[:-k])


def _hashes(numbers: Array, starts: Array, k: int) -> Array:
    """(S,) uint64 hashes of the runs of k numbers at the given starts; each input bit affects all bits of the hash."""
    found = np.zeros(len(starts), np.uint64)
    for i in range(k):
        found = (found + numbers[starts + i].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
