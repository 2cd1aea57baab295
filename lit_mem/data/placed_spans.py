"""Pieces of a text, in characters, as spans of its tokens: those that are scored, and those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lit_mem.data.token_batches import Offsets
from lit_mem.types import Span


class Placed(NamedTuple):
    """Spans in tokens.

    Attributes:
        scored: all of whose tokens are.
        unscored: none of whose tokens is.
    """

    scored: list[Span]
    unscored: list[Span]


def placed(pieces: Iterable[tuple[str, int, int]], text: str, offsets: Offsets, scored: Sequence[bool]) -> Placed:
    """Where pieces stand in the tokens.

    The tokens of a piece are those that overlap it in a character that is no space, and all between these. Left out are
    pieces that were cut off, such as are scored in part, and those with the first token of all, which nothing precedes.

    Args:
        pieces: kind, start and end in characters of the text.
        text: of which `offsets` say where each token stands.
        offsets: of all tokens, also of those that were cut off.
        scored: (T,) of the tokens that are left.
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
