"""Words of the data where people read them: on a console, in a figure, in TensorBoard's Markdown.

A value of a column or the name of a file may hold anything: escape sequences that a terminal obeys, marks that turn the
direction of writing, HTML. Here it becomes what it looks like, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Seen by nobody, but parts of Persian words and of emoji."""
_MARKUP: Final = re.compile(r"[\\`*_{}\[\]()!|<>&~$^]")


def printable(text: str, longest: int | None = None, aligned: bool = False) -> str:
    r"""The text on one line of which every character shows.

    White space becomes single spaces. What cannot be seen and may do harm (escape sequences, marks that turn the
    direction of writing, unpaired surrogates) is written as Python escapes it.

    Args:
        text: any text.
        longest: most characters; a longer text is cut, and ends in "…". None: any number.
        aligned: keep spaces as they are, as in a row of a table.

    >>> printable("at\nhome\x1b[31m")
    'at home\\x1b[31m'
    """
    line = " ".join(text.splitlines() if aligned else text.split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in line)
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown whose cells read as they are given, whatever markup or HTML is in them."""
    lines = [_line(header), _line(["---"] * len(header), escape=False), *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str], escape: bool = True) -> str:
    shown = [_MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", printable(cell)) if escape else cell for cell in cells]
    return f"| {' | '.join(shown)} |"
