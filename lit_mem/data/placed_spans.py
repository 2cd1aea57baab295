"""Convert character spans of a text to token spans: scored and unscored ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lit_mem.data.token_batches import Offsets
from lit_mem.types import Span


class Placed(NamedTuple):
    """Spans in tokens.

    Attributes:
        scored: spans with all tokens scored.
        unscored: spans with no token scored.
    """

    scored: list[Span]
    unscored: list[Span]


def placed(pieces: Iterable[tuple[str, int, int]], text: str, offsets: Offsets, scored: Sequence[bool]) -> Placed:
    """Map character spans to token spans.

    The tokens of a span are those that overlap it in a non-space character, and all between these. Spans that were
    truncated, are partly scored, or include the very first token, which nothing precedes, are dropped.

    Args:
        pieces: kind, start and end in characters of the text.
        text: the text that `offsets` refer to.
        offsets: of all tokens, including truncated ones.
        scored: (T,) of the tokens that were kept.
    """
    found = Placed([], [])
    for kind, start, end in pieces:
        tokens = [
            token
            for token, (a, b) in enumerate(offsets)
            if a < end and b > start and text[max(a, start) : min(b, end)].strip()
        ]
        if not tokens or tokens[-1] >= len(scored) or not tokens[0]:
            continue
        inside = scored[tokens[0] : tokens[-1] + 1]
        span = Span(kind, tokens[0], tokens[-1] + 1)
        if all(inside):
            found.scored.append(span)
        elif not any(inside):
            found.unscored.append(span)
    return found
