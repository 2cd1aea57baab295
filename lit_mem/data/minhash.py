"""Nearly equal texts among many: MinHash signatures in bands, in time and memory that grow linearly.

Each text has some signature values; value k is the least hash, under the k-th of as many hash functions, of its runs of
three words. Two texts agree in a value with the probability of their Jaccard similarity (Broder 1997). The values stand
in 32 bands of up to 4; texts that agree in a whole band are compared, and only what is as similar as asked counts: none
is found wrongly. With bands of v values a pair of similarity s agrees in one with probability 1 - (1 - s^v)^32: for 0.7
bands have 4 values, and 0.9998 of the pairs that are just so similar are found; for other thresholds as many as find
0.999. A text is compared with the eight others that it has most bands in common with, and of a band that thousands of
texts share, as those of one form do, with eight of them: what such a form hides may be missed.

Numpy alone: datasketch takes 10 KiB and 180 µs of a processor a text for the same bands, 10 GB for a million texts, and
rensa 3 KiB and 7 µs; here it is 128 bytes and 20 µs.
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
"""Up to so many texts all are compared, as far as they share a rare run; in 10 seconds and 1 GB."""
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
    """What is kept of N texts.

    Attributes:
        exact: (N, 16) uint8, digests of the texts.
        forms: (N, 16) uint8, digests of the texts once normalized.
        bands: (N, 32) uint32, a hash of each band; (N, 0) where these are not needed.
        wordless: (N,) bool, whether a text has no word, and so no band in common with any.
    """

    exact: Array
    forms: Array
    bands: Array
    wordless: Array


def sketched(texts: Sequence[str], threshold: float | None, what: str) -> Sketch:
    """The sketch of some texts; on a terminal a bar shows how far it is.

    Args:
        texts: are read once, in order.
        threshold: from which similarity on texts are to be found, in (0, 1]; None: only equal ones are.
        what: the name of the bar.

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
    """How many values a band has: as many as miss at most 1 in 1000 of the pairs that are just so similar.

    >>> [values_for(threshold) for threshold in (0.3, 0.5, 0.7, 0.9)]
    [1, 2, 4, 4]
    """
    fit = (v for v in range(_MOST_VALUES, 1, -1) if (1 - threshold**v) ** BANDS <= _MISSED)
    return next(fit, 1)


def method(threshold: float) -> str:
    """What is done, with its parameters, for a log."""
    return f"MinHash with {BANDS} bands of {values_for(threshold)}, each match verified"


def _sketched(texts: list[str], values: int | None) -> Sketch:
    forms = [normalized(text) for text in texts]
    bands = np.empty((len(texts), 0), np.uint32) if values is None else _bands(forms, values)
    wordless = np.array([_WORD.search(form) is None for form in forms], bool)
    return Sketch(digests(texts), digests(forms), bands, wordless)


def near_matches_of(
    members: Sketch, heldout: Sketch, texts: tuple[Sequence[str], Sequence[str]], threshold: float
) -> Matches:
    """For each held-out text with a nearly equal member, by index, the most similar one of those compared.

    Nearly equal as for `lit_mem.data.overlap.near_matches`; what is equal once normalized is found always.

    Args:
        members: of M texts.
        heldout: of N texts.
        texts: the M and the N texts themselves, of which few are read.
        threshold: that the sketches were made for.
    """
    forms = numbered(members.forms, heldout.forms)
    found = matches_of(*forms)
    left = ~heldout.wordless
    left[list(found)] = False
    again = members.wordless.copy()
    again[list(repeats_of(forms[0]))] = True
    kept, asked = np.flatnonzero(~again), np.flatnonzero(left)
    for j, near in _nearest(members.bands[kept], heldout.bands[asked], texts, (kept, asked), threshold):
        found[j] = min(near, key=lambda i: (-near[i], i))
    return dict(sorted(found.items()))


def near_repeats_of(sketch: Sketch, texts: Sequence[str], threshold: float) -> Matches:
    """For each text that is nearly equal to an earlier one that is none itself, by index, the first one compared.

    Args:
        sketch: of the texts.
        texts: themselves, of which few are read.
        threshold: that the sketch was made for.
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
    # A copy of a text that is left out itself repeats what that one repeats.
    nearly |= {j: nearly.get(i, i) for j, i in again.items()}
    return dict(sorted(nearly.items()))


def _nearest(
    bands: Array,
    asked: Array | None,
    texts: tuple[Sequence[str], Sequence[str]],
    places: tuple[Array, Array],
    least: float,
) -> Iterator[tuple[int, dict[int, float]]]:
    """For each text that has some, in order: the similarity of those as similar as `least`, by index.

    Args:
        bands: (M, 32) of what they are compared with.
        asked: (N, 32) of those that are asked; None: the same texts, each compared with those before it.
        texts: the members and the texts that are asked, by index.
        places: (M,) and (N,) the indices of both.
        least: in (0, 1].
    """
    ordered = [_ordered(bands[:, b], asked is None) for b in range(BANDS)]
    wanted = bands if asked is None else asked
    for start in range(0, len(wanted), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(wanted)))
        pairs = np.concatenate([one.candidates(wanted[rows, b], rows) for b, one in enumerate(ordered)])
        both, common = np.unique(pairs, axis=0, return_counts=True)
        # Of each text those with most bands in common.
        best = np.lexsort((both[:, 1], -common, both[:, 0]))
        both = both[best]
        rank = np.arange(len(both)) - np.searchsorted(both[:, 0], both[:, 0])
        both = both[rank < _COMPARED]
        if not len(both):
            continue
        of_members = _runs_of(texts[0], places[0], both[:, 1])
        of_asked = _runs_of(texts[1], places[1], both[:, 0])
        near: dict[int, dict[int, float]] = {}
        for j, i in both.tolist():
            similarity = _jaccard(of_members[i], of_asked[j])
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
    """One band of all texts in order of its hashes, so that equal ones stand side by side."""

    def __init__(self, hashes: Array, among_themselves: bool) -> None:
        self.order = np.argsort(hashes, kind="stable").astype(np.int32)
        self.hashes = hashes[self.order]
        self.place: Array | None = None
        if among_themselves:
            self.place = np.empty(len(hashes), np.int32)
            self.place[self.order] = np.arange(len(hashes), dtype=np.int32)

    def candidates(self, hashes: Array, rows: Array) -> Array:
        """(P, 2) pairs of one of `rows` and a text with its hash; of many such texts the first and the last ones."""
        low = np.searchsorted(self.hashes, hashes)
        # Among themselves, those before it, which stand in front as the sorting is stable.
        high = np.searchsorted(self.hashes, hashes, side="right") if self.place is None else self.place[rows]
        found = []
        for k in range(_IN_A_BAND // 2):
            for at, there in ((low + k, low + k < high), (high - 1 - k, high - 1 - k >= low + _IN_A_BAND // 2)):
                found.append(np.stack([rows[there], self.order[at[there]]], axis=1))
        return np.concatenate(found)


def _bands(forms: Sequence[str], values: int) -> Array:
    """(N, 32) uint32 of normalized texts, by so many values a band."""
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
    """Hashes of all runs of three words, text after text, and where those of each text begin.

    A text of fewer words has its words for runs, and one without a character an empty one. The hash of a run is that of
    a polynomial in its bytes (Rabin and Karp), from sums over all bytes in front, with no Python object a run.
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
    """Each bit of the results depends on each bit of the values (the finalizer of MurmurHash3, by Appleby)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: Array = values ^ (values >> np.uint64(33))
    return mixed
