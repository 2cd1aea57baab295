"""Make values from the data safe to show: on a console, in a plot, in TensorBoard's Markdown.

A column value or a file name may contain anything: terminal escape sequences, bidirectional control characters, HTML.
The functions here make such content visible and inert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Invisible, but part of Persian words and of emoji."""
_MARKUP: Final = re.compile(r"[\\`*_{}\[\]()!|<>&~$^]")


def printable(text: str, longest: int | None = None, aligned: bool = False) -> str:
    r"""The text on one line, with every character visible.

    White space becomes single spaces. Invisible characters that may do harm (escape sequences, bidirectional controls,
    unpaired surrogates) are written as Python escapes.

    Args:
        text: any text.
        longest: maximum characters; a longer text is truncated and ends in "…". None: no limit.
        aligned: keep spaces as they are, as in a row of a table.

    >>> printable("at\nhome\x1b[31m")
    'at home\\x1b[31m'
    """
    line = " ".join(text.splitlines() if aligned else text.split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in line)
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose cells are shown literally, whatever markup or HTML they contain."""
    lines = [_line(header), _line(["---"] * len(header), escape=False), *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str], escape: bool = True) -> str:
    shown = [_MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", printable(cell)) if escape else cell for cell in cells]
    return f"| {' | '.join(shown)} |"
