"""Text shared by two sets: exact, ignoring case and punctuation, or near duplicates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lit_mem.data.digests import digests, matches_of, numbered, repeats_of
from lit_mem.errors import check_range
from lit_mem.functional.words import plain_words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Matches = dict[int, int]
"""For each held-out row (index) with a match, one matching member (index)."""

NEAR: Final = 0.7
"""Default Jaccard similarity from which texts are near duplicates."""

_SHINGLE_WORDS: Final = 3
_CHUNK_ENTRIES: Final = 4_000_000
_CHUNK_PAIRS: Final = 50_000
_WORD: Final = re.compile(r"\w+")
_ASCII: Final = {code: " " for code in range(128) if not _WORD.match(chr(code))}


def words(text: str) -> list[str]:
    """The words of a text, case-folded, without punctuation, width variants or ligatures.

    In scripts without spaces between words (Chinese, Thai) each character is a word.

    >>> words("Cimetidine-induced  FEVER."), words("皮疹")
    (['cimetidine', 'induced', 'fever'], ['皮', '疹'])
    """
    if text.isascii():  # same result, in a third of the time
        return text.lower().translate(_ASCII).split()
    return plain_words(unicodedata.normalize("NFKC", text).casefold())


def normalized(text: str) -> str:
    """The words joined by single spaces; for a text without words, the text without white space.

    >>> normalized("A  case, of fever!") == normalized("a case of Fever")
    True
    """
    return " ".join(words(text)) or "".join(text.split())


def shingles(text: str) -> set[str]:
    """All runs of three words; for a shorter text, its words.

    >>> sorted(shingles("a case of fever")), shingles("Fever.")
    (['a case of', 'case of fever'], {'fever'})
    """
    found = words(text)
    if len(found) < _SHINGLE_WORDS:
        return set(found)
    return {" ".join(found[i : i + _SHINGLE_WORDS]) for i in range(len(found) - _SHINGLE_WORDS + 1)}


def repeats(texts: Sequence[str]) -> Matches:
    """Map the index of each repeated text to its first occurrence."""
    return repeats_of(numbered(digests(texts))[0])


def matches(members: Sequence[str], heldout: Sequence[str]) -> Matches:
    """Map the index of each held-out text that equals a member to the first such member."""
    return matches_of(*numbered(digests(members), digests(heldout)))


def near_matches(members: Sequence[str], heldout: Sequence[str], threshold: float = NEAR) -> Matches:
    """Map the index of each held-out text that is a near duplicate of a member to the most similar member.

    Near duplicates: the Jaccard similarity |a and b| / |a or b| of the sets of three-word runs is at least `threshold`
    (Broder 1997), or the texts are equal after normalization. Exact: no hashing, no sampling.

    Two sets that are this similar share at least one of the |a| - ceil(threshold |a|) + 1 rarest elements of each
    (prefix filtering: Chaudhuri et al. 2006; Bayardo et al. 2007). So only rows that share a rare run are compared, and
    phrases common to all texts cost nothing.

    Args:
        members: (M,) texts.
        heldout: (N,) texts.
        threshold: in (0, 1].

    Returns:
        A dictionary of at most N entries. Time is proportional to the pairs that share a rare run; memory is that of
        the runs, plus at most about 100 MB.

    Raises:
        ConfigError: `threshold` is not in (0, 1].
    """
    from sklearn.feature_extraction.text import CountVectorizer

    check_range("the near-duplicate threshold", threshold, above=0, at_most=1)
    # Handle equal texts here, since many copies of one text would make as many pairs.
    keys_members, keys_heldout = map(normalized, members), [normalized(text) for text in heldout]
    first: dict[str, int] = {}
    for i, key in enumerate(keys_members):
        first.setdefault(key, i)
    found = {j: first[key] for j, key in enumerate(keys_heldout) if key in first}
    open_keys = list(dict.fromkeys(key for key in keys_heldout if key not in first))
    keys = [*first, *open_keys]
    if not open_keys or not any(map(_WORD.search, keys)):
        return found
    both = CountVectorizer(analyzer=shingles, dtype=np.int32).fit_transform(keys)
    best = _most_similar(both[: len(first)], both[len(first) :], threshold)
    origin = list(first.values())
    nearest = {open_keys[j]: origin[i] for j, i in enumerate(best) if i >= 0}
    found |= {j: nearest[key] for j, key in enumerate(keys_heldout) if key in nearest}
    return dict(sorted(found.items()))


def near_repeats(texts: Sequence[str], threshold: float = NEAR) -> Matches:
    """Map the index of each near duplicate of an earlier, non-duplicate text to the first such text.

    Near duplicates as in `near_matches`. The remaining texts contain no two near duplicates.

    Raises:
        ConfigError: `threshold` is not in (0, 1].
    """
    from sklearn.feature_extraction.text import CountVectorizer

    check_range("the near-duplicate threshold", threshold, above=0, at_most=1)
    keys = [normalized(text) for text in texts]
    again = repeats(keys)
    origin = [i for i in range(len(keys)) if i not in again]
    if not any(_WORD.search(keys[i]) for i in origin):
        return again
    runs = CountVectorizer(analyzer=shingles, dtype=np.int32).fit_transform([keys[i] for i in origin])
    earlier: dict[int, list[int]] = {}
    for first, second, _ in _similar(runs, runs, threshold):
        for i, j in zip(first[first < second].tolist(), second[first < second].tolist(), strict=True):
            earlier.setdefault(j, []).append(i)
    nearly: Matches = {}
    for j in sorted(earlier):
        kept = [i for i in earlier[j] if i not in nearly]
        if kept:
            nearly[j] = min(kept)
    found = {origin[j]: origin[i] for j, i in nearly.items()}
    # A copy of a dropped text repeats what that text repeats.
    found |= {j: found.get(i, i) for j, i in again.items()}
    return dict(sorted(found.items()))


def _most_similar(members: csr_matrix, heldout: csr_matrix, threshold: float) -> np.ndarray[Any, Any]:
    """(N,) int64, the row of `members` most similar to each of `heldout`, or -1 for none."""
    best = np.full(heldout.shape[0], -1, dtype=np.int64)
    similarity = np.zeros(heldout.shape[0])
    for i, j, jaccard in _similar(members, heldout, threshold):
        for k in np.flatnonzero(jaccard > similarity[j]):
            if jaccard[k] > similarity[j[k]]:
                similarity[j[k]], best[j[k]] = jaccard[k], i[k]
    return best


def _similar(
    members: csr_matrix, heldout: csr_matrix, threshold: float
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Pairs of rows with at least this similarity, in chunks: row of `members`, row of `heldout`, similarity."""
    n_members, n_heldout = (np.diff(matrix.indptr) for matrix in (members, heldout))
    frequency = np.asarray(members.sum(axis=0) + heldout.sum(axis=0)).ravel()
    rank = np.empty(len(frequency), dtype=np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    rare_members, rare_heldout = (_rarest(matrix, rank, threshold) for matrix in (members, heldout))
    # Upper bound on the entries of a chunk's product.
    entries = np.cumsum(rare_members @ np.asarray(rare_heldout.sum(axis=0)).ravel())
    other = rare_heldout.T.tocsr()
    start = 0
    while start < members.shape[0]:
        done = entries[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(entries, done + _CHUNK_ENTRIES, side="right")))
        pairs = (rare_members[start:stop] @ other).tocoo()
        for at in range(0, pairs.nnz, _CHUNK_PAIRS):
            i = pairs.row[at : at + _CHUNK_PAIRS] + start
            j = pairs.col[at : at + _CHUNK_PAIRS]
            common = np.asarray(members[i].multiply(heldout[j]).sum(axis=1)).ravel()
            jaccard = common / (n_members[i] + n_heldout[j] - common)
            enough = jaccard >= threshold
            yield i[enough], j[enough], jaccard[enough]
        start = stop


def _rarest(matrix: csr_matrix, rank: np.ndarray[Any, Any], threshold: float) -> csr_matrix:
    """The rows with only their rarest entries, at least one of which a similar row must share."""
    from scipy.sparse import csr_matrix

    ranked = csr_matrix((matrix.data, rank[matrix.indices], matrix.indptr), shape=matrix.shape)
    ranked.sort_indices()
    sizes = np.diff(ranked.indptr)
    # Slightly below, so that 0.7 * 10 does not count as more than 7.
    kept = np.where(sizes > 0, sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1, 0)
    position = np.arange(ranked.nnz) - np.repeat(ranked.indptr[:-1], sizes)
    chosen = position < np.repeat(kept, sizes)
    indptr = np.concatenate([[0], np.cumsum(kept)])
    return csr_matrix((ranked.data[chosen], ranked.indices[chosen], indptr), shape=matrix.shape)
