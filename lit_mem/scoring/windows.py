"""Windows over a text that is longer than the model's input.

Each token counts in one window, the one with the most context before it; the other tokens of a window are context. So
the windows of a text have as many counted tokens as the text, however much they overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.types import Batch, Windows


class Window(NamedTuple):
    """A piece of a text, after the text's head.

    Attributes:
        start: position of its first token, after the head.
        stop: position after its last token.
        first: position of its first token that counts; those before it are context.
    """

    start: int
    stop: int
    first: int


def windows_of(text: Windows) -> list[Window]:
    """The windows of a text, in order: each is full, and ends at most `stride` tokens after the previous one.

    The last one ends with the text and is as wide as the others. Each has at least one token of context, a BOS token or
    the text's own: without a BOS token, two windows share one token if `stride` would leave no overlap.

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
    """(n,) int64: positions in the text of a window's tokens, the head's first."""
    return torch.cat([torch.arange(head), torch.arange(window.start, window.stop)])


def first_read(batch: Batch, row: int, scored: Tensor) -> Tensor:
    """(n,) int64: positions of the tokens in a text's first window with a scored token; all if it has no windows.

    Args:
        batch: the batch.
        row: row of the text.
        scored: (T,) bool on the CPU.
    """
    text = batch["windows"][row] if "windows" in batch else None
    if text is not None:
        for window in windows_of(text):
            if bool(scored[window.first : window.stop].any()):
                return positions_of(window, text.head)
    return torch.arange(len(scored))


def context_begins(text: Windows | None, length: int) -> Tensor:
    """(length,) int64: start of the context in which each token is scored, without the head.

    Args:
        text: its windows; None: read whole, without a head.
        length: number of tokens, padding included.
    """
    begins = torch.zeros(length, dtype=torch.int64)
    if text is not None:
        for window in windows_of(text):
            begins[window.first : window.stop] = window.start
    return begins
