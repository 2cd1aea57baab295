"""Tokenize texts in batches, overlapping with the processing of the previous batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from lit_mem.files.untrusted import panics_raised

T = TypeVar("T")
Part = TypeVar("Part")

Array = np.ndarray[Any, Any]

Offsets = Sequence[tuple[int, int]]
"""Position of each token in the text, in characters: start and end; equal for a token outside the text."""


class TokenBatch:
    """The tokens of some texts. Offsets are computed only if needed, since that takes as long as tokenizing.

    Args:
        tokenizer: a fast Hugging Face tokenizer; it uses all cores.
        texts: (N,).
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        with panics_raised("the tokenizer"):
            encoded = tokenizer(texts, return_attention_mask=False)
        ids = encoded["input_ids"]
        self._encodings = encoded.encodings
        self._stops = np.cumsum([len(one) for one in ids]).tolist()
        self._ids = np.fromiter(chain.from_iterable(ids), np.int64, self._stops[-1] if ids else 0)

    def ids(self, i: int) -> Array:
        """(T,) int64 token ids of a text."""
        return self._ids[self._stops[i - 1] if i else 0 : self._stops[i]]

    def offsets(self, i: int) -> Offsets:
        """Positions of its T tokens."""
        offsets: Offsets = self._encodings[i].offsets
        return offsets

    def after(self, i: int, n: int) -> Array:
        """(T,) bool, its tokens that end after the first n characters."""
        if n:
            return self.ends(i) > n
        # For a whole text: all except special tokens at both ends, and tokens without characters.
        behind = np.ones(len(self.ids(i)), bool)
        for places in (range(len(behind)), reversed(range(len(behind)))):
            for place in places:
                found = self._encodings[i].token_to_chars(place)
                if found is not None and found[1] > 0:
                    break
                behind[place] = False
        return behind

    def ends(self, i: int) -> Array:
        """(T,) int64, number of characters up to the end of each token."""
        return np.array([end for _, end in self.offsets(i)], np.int64)


def one_ahead(parts: Iterable[Part], compute: Callable[[Part], T]) -> Iterator[tuple[Part, T]]:
    """Each part with its computed value, in order; the next value is computed meanwhile in another thread.

    An error in a part is raised when its turn comes.
    """
    with ThreadPoolExecutor(1) as thread:
        before = None
        for part in parts:
            later = part, thread.submit(compute, part)
            if before is not None:
                yield before[0], before[1].result()
            before = later
        if before is not None:
            yield before[0], before[1].result()
