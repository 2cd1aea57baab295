"""Near duplicates among many texts: MinHash signatures in bands, in linear time and memory.

Each text has several signature values; value k is the minimum, under the k-th hash function, of the hashes of its runs
of three words. Two texts agree in a value with probability equal to their Jaccard similarity (Broder 1997). The values
form 32 bands of up to 4; texts that agree in a whole band are compared, and only verified matches count: there are no
false positives. With v values per band a pair of similarity s agrees in some band with probability 1 - (1 - s^v)^32:
for 0.7, bands have 4 values, and 0.9998 of the pairs of exactly that similarity are found; for other thresholds v is
chosen to find 0.999. A text is compared with the eight others with which it shares most bands, and within a band shared
by thousands of texts, such as those from one form, with eight of them: duplicates hidden by such a form may be missed.

Uses numpy only: datasketch takes 10 KiB and 180 µs of CPU per text for the same bands, 10 GB for a million texts, and
rensa 3 KiB and 7 µs; this takes 128 bytes and 20 µs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from lit_mem.data.digests import digests, matches_of, numbered, repeats_of
from lit_mem.data.overlap import Matches, normalized, shingles
from lit_mem.data.progress import shown_progress
from lit_mem.data.row_texts import texts_at
from lit_mem.errors import check_range

Array = np.ndarray[Any, Any]

EXACT_UP_TO: Final = 50_000
"""Up to this many texts, all that share a rare run are compared; takes 10 seconds and 1 GB."""
BANDS: Final = 32

_MOST_VALUES: Final = 4
_MISSED: Final = 0.001
_RUN: Final = 3
_AT_ONCE: Final = 1000
_IN_A_BAND: Final = 8
_COMPARED: Final = 8
_SPACE: Final = ord(" ")
_WORD: Final = re.compile(r"\w")
_BASE: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_BASE, -1, 2**64)


class Sketch(NamedTuple):
    """The sketch of N texts.

    Attributes:
        exact: (N, 16) uint8, digests of the texts.
        forms: (N, 16) uint8, digests of the normalized texts.
        bands: (N, 32) uint32, a hash of each band; (N, 0) if not needed.
        wordless: (N,) bool, whether a text has no words, and so shares no band.
    """

    exact: Array
    forms: Array
    bands: Array
    wordless: Array


def sketched(texts: Sequence[str], threshold: float | None, what: str) -> Sketch:
    """Sketch texts; on a terminal a progress bar is shown.

    Args:
        texts: read once, in order.
        threshold: minimum similarity, in (0, 1]; None: only equal texts.
        what: label of the progress bar.

    Raises:
        ConfigError: `threshold` is not in (0, 1].
    """
    check_range("the near-duplicate threshold", threshold, above=0, at_most=1, or_null=True)
    values = None if threshold is None else values_for(threshold)
    rest = iter(texts)
    parts = iter(lambda: list(islice(rest, _AT_ONCE)), [])
    made = [_sketched(part, values) for part in shown_progress(parts, _AT_ONCE, len(texts), what)]
    return Sketch(*(np.concatenate(column) for column in zip(_sketched([], values), *made, strict=True)))


def values_for(threshold: float) -> int:
    """Values per band: the most that miss at most 1 in 1000 of the pairs of exactly that similarity.

    >>> [values_for(threshold) for threshold in (0.3, 0.5, 0.7, 0.9)]
    [1, 2, 4, 4]
    """
    fit = (v for v in range(_MOST_VALUES, 1, -1) if (1 - threshold**v) ** BANDS <= _MISSED)
    return next(fit, 1)


def method(threshold: float) -> str:
    """The method with its parameters, for the log."""
    return f"MinHash with {BANDS} bands of {values_for(threshold)}, each match verified"


def _sketched(texts: list[str], values: int | None) -> Sketch:
    forms = [normalized(text) for text in texts]
    bands = np.empty((len(texts), 0), np.uint32) if values is None else _bands(forms, values)
    wordless = np.array([_WORD.search(form) is None for form in forms], bool)
    return Sketch(digests(texts), digests(forms), bands, wordless)


def near_matches_of(
    members: Sketch, heldout: Sketch, texts: tuple[Sequence[str], Sequence[str]], threshold: float
) -> Matches:
    """Map each held-out text that is a near duplicate of a member to the most similar member compared.

    Near duplicates as in `lit_mem.data.overlap.near_matches`; texts equal after normalization are always found.

    Args:
        members: sketch of M texts.
        heldout: sketch of N texts.
        texts: the M and the N texts themselves, of which few are read.
        threshold: threshold of the sketches.
    """
    forms = numbered(members.forms, heldout.forms)
    found = matches_of(*forms)
    left = ~heldout.wordless
    left[list(found)] = False
    again = members.wordless.copy()
    again[list(repeats_of(forms[0]))] = True
    kept, queries = np.flatnonzero(~again), np.flatnonzero(left)
    for j, near in _nearest(members.bands[kept], heldout.bands[queries], texts, (kept, queries), threshold):
        found[j] = min(near, key=lambda i: (-near[i], i))
    return dict(sorted(found.items()))


def near_repeats_of(sketch: Sketch, texts: Sequence[str], threshold: float) -> Matches:
    """Map each near duplicate of an earlier, non-duplicate text to the first such text compared.

    Args:
        sketch: sketch of the texts.
        texts: the texts themselves, of which few are read.
        threshold: threshold of the sketch.
    """
    again = repeats_of(numbered(sketch.forms)[0])
    left = ~sketch.wordless
    left[list(again)] = False
    kept = np.flatnonzero(left)
    nearly: Matches = {}
    for j, near in _nearest(sketch.bands[kept], None, (texts, texts), (kept, kept), threshold):
        first = [i for i in near if i not in nearly]
        if first:
            nearly[j] = min(first)
    # A copy of a dropped text repeats what that text repeats.
    nearly |= {j: nearly.get(i, i) for j, i in again.items()}
    return dict(sorted(nearly.items()))


def _nearest(
    bands: Array,
    queries: Array | None,
    texts: tuple[Sequence[str], Sequence[str]],
    places: tuple[Array, Array],
    least: float,
) -> Iterator[tuple[int, dict[int, float]]]:
    """For each text with matches, in order: the similarity of texts at least as similar as `least`, by index.

    Args:
        bands: (M, 32) of the texts compared with.
        queries: (N, 32) of the query texts; None: the same texts, each compared with those before it.
        texts: the members and the query texts, by index.
        places: (M,) and (N,) the indices of both.
        least: in (0, 1].
    """
    ordered = [_ordered(bands[:, b], queries is None) for b in range(BANDS)]
    wanted = bands if queries is None else queries
    for start in range(0, len(wanted), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(wanted)))
        pairs = np.concatenate([one.candidates(wanted[rows, b], rows) for b, one in enumerate(ordered)])
        both, common = np.unique(pairs, axis=0, return_counts=True)
        # For each text those sharing most bands.
        best = np.lexsort((both[:, 1], -common, both[:, 0]))
        both = both[best]
        rank = np.arange(len(both)) - np.searchsorted(both[:, 0], both[:, 0])
        both = both[rank < _COMPARED]
        if not len(both):
            continue
        of_members = _runs_of(texts[0], places[0], both[:, 1])
        of_queries = _runs_of(texts[1], places[1], both[:, 0])
        near: dict[int, dict[int, float]] = {}
        for j, i in both.tolist():
            similarity = _jaccard(of_members[i], of_queries[j])
            if similarity >= least:
                near.setdefault(int(places[1][j]), {})[int(places[0][i])] = similarity
        yield from near.items()


def _runs_of(texts: Sequence[str], places: Array, rows: Array) -> dict[int, set[str]]:
    """Runs of words by row; `places` are the rows' indices in `texts`."""
    few = np.unique(rows)
    return {row: shingles(text) for row, text in zip(few.tolist(), texts_at(texts, places[few].tolist()), strict=True)}


def _jaccard(one: set[str], other: set[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


class _ordered:
    """One band of all texts sorted by hash, so that equal ones are adjacent."""

    def __init__(self, hashes: Array, among_themselves: bool) -> None:
        self.order = np.argsort(hashes, kind="stable").astype(np.int32)
        self.hashes = hashes[self.order]
        self.place: Array | None = None
        if among_themselves:
            self.place = np.empty(len(hashes), np.int32)
            self.place[self.order] = np.arange(len(hashes), dtype=np.int32)

    def candidates(self, hashes: Array, rows: Array) -> Array:
        """(P, 2) pairs of one of `rows` and a text with the same hash; of many such texts the first and last ones."""
        low = np.searchsorted(self.hashes, hashes)
        # Within one set, those before it, which come first since the sort is stable.
        high = np.searchsorted(self.hashes, hashes, side="right") if self.place is None else self.place[rows]
        found = []
        for k in range(_IN_A_BAND // 2):
            for at, there in ((low + k, low + k < high), (high - 1 - k, high - 1 - k >= low + _IN_A_BAND // 2)):
                found.append(np.stack([rows[there], self.order[at[there]]], axis=1))
        return np.concatenate(found)


def _bands(forms: Sequence[str], values: int) -> Array:
    """(N, 32) uint32 of normalized texts, with this many values per band."""
    if not forms:
        return np.empty((0, BANDS), np.uint32)
    hashes, firsts = _run_hashes(forms)
    random = np.random.RandomState(0)  # the same functions on every machine; no global state
    factors, terms = (random.randint(0, 2**64, (2, BANDS * values), np.uint64) | np.uint64(1))[:, :, None]
    found = np.zeros((len(forms), BANDS), np.uint64)
    for k in range(BANDS * values):
        least = np.minimum.reduceat((hashes * factors[k] + terms[k]) >> np.uint64(32), firsts)
        found[:, k // values] = _mixed(found[:, k // values] + least + np.uint64(1))
    return (found >> np.uint64(32)).astype(np.uint32)


def _run_hashes(forms: Sequence[str]) -> tuple[Array, Array]:
    """Hashes of all runs of three words, text after text, and the start of each text's hashes.

    A text of fewer words has its words as runs, and an empty text has one empty run. The hash of a run is a polynomial
    in its bytes (Rabin and Karp), computed from prefix sums over all bytes, without a Python object per run.
    """
    parts = [form.encode("utf-8", "surrogatepass") for form in forms]
    joined = np.frombuffer(b" ".join(parts) + b" ", np.uint8)
    stops = np.flatnonzero(joined == _SPACE)
    starts = np.concatenate([[0], stops[:-1] + 1])
    ends = np.cumsum([len(part) + 1 for part in parts]) - 1
    text = np.searchsorted(ends, stops)
    n_words = np.bincount(text, minlength=len(parts))
    last = np.arange(len(stops)) + np.where(n_words[text] < _RUN, 0, _RUN - 1)
    whole = last < np.cumsum(n_words)[text]
    begin, end, text = starts[whole], stops[last[whole]], text[whole]
    powers, inverses = _powers(_BASE, len(joined) + 1), _powers(_INVERSE, len(joined) + 1)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((joined + np.uint64(1)) * powers[:-1])])
    hashes = _mixed((sums[end] - sums[begin]) * inverses[begin])
    return hashes, np.searchsorted(text, np.arange(len(parts)))


def _powers(base: int, n: int) -> Array:
    """(n,) uint64, base^0, base^1, … modulo 2^64."""
    return _some_powers(base, n.bit_length())[:n]


@lru_cache(4)
def _some_powers(base: int, bits: int) -> Array:
    n = 2**bits
    factors = np.full(n, base, np.uint64)
    factors[:1] = 1
    powers: Array = np.cumprod(factors)
    return powers


def _mixed(values: Array) -> Array:
    """Mix bits: each output bit depends on each input bit (the finalizer of MurmurHash3, by Appleby)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: Array = values ^ (values >> np.uint64(33))
    return mixed
