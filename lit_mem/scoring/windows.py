"""Windows over a text that is longer than the model is given at once.

Each token counts in one window, the one in which the most of the text before it stands; what else stands in a window is
context. So the windows of a text have as many tokens that count as the text, whatever they have in common.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.types import Batch, Windows


class Window(NamedTuple):
    """A piece of a text, behind the text's head.

    Attributes:
        start: position of its first token, behind the head.
        stop: position after its last token.
        first: position of the first token that counts in it; those before it are context.
    """

    start: int
    stop: int
    first: int


def windows_of(text: Windows) -> list[Window]:
    """The windows of a text, in order: each is full, and ends at most `stride` tokens behind the one before.

    The last one ends with the text and reaches back as far as the others do. Each has a token of context at least, a
    BOS token or the text's own: without a BOS token, two windows have one token in common where `stride` would leave
    them none.

    >>> windows_of(Windows(tokens=5, stride=2, head=1, length=10))
    [Window(start=1, stop=5, first=0), Window(start=3, stop=7, first=5), Window(start=5, stop=9, first=7), Window(start=6, stop=10, first=9)]
    """  # noqa: E501
    width = text.tokens - text.head
    step = min(text.stride, width if text.head else width - 1)
    stop = min(text.head + width, text.length)
    found = [Window(text.head, stop, 0)]
    while stop < text.length:
        first, stop = stop, min(stop + step, text.length)
        found.append(Window(stop - width, stop, first))
    return found


def positions_of(window: Window, head: int) -> Tensor:
    """(n,) int64: where in the text the tokens of a window stand, the head's first."""
    return torch.cat([torch.arange(head), torch.arange(window.start, window.stop)])


def first_read(batch: Batch, row: int, scored: Tensor) -> Tensor:
    """(n,) int64: where the tokens of a text's first window with a scored token stand; all, if it has no windows.

    Args:
        batch: with the text.
        row: of the text.
        scored: (T,) bool on the CPU.
    """
    text = batch["windows"][row] if "windows" in batch else None
    if text is not None:
        for window in windows_of(text):
            if bool(scored[window.first : window.stop].any()):
                return positions_of(window, text.head)
    return torch.arange(len(scored))


def context_begins(text: Windows | None, length: int) -> Tensor:
    """(length,) int64: for each token where the context begins in which it is scored, the head left out.

    Args:
        text: how it is read; None: whole, without a head.
        length: tokens, padding included.
    """
    begins = torch.zeros(length, dtype=torch.int64)
    if text is not None:
        for window in windows_of(text):
            begins[window.first : window.stop] = window.start
    return begins
