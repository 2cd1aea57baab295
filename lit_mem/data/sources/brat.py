"""BRAT annotations: the spans in an .ann file next to a note."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_SPAN: Final = re.compile(r"(\S+) (\d+ \d+(?:;\d+ \d+)*)")


class AnnotationError(Exception):
    """A line of an .ann file is invalid; the message quotes no text."""


def brat_spans(annotations: str, text: str) -> list[dict[str, Any]]:
    r"""The spans of a note: a list of {type, start, end}, in characters of the note, one entry per fragment.

    Only text-bound lines (`T1<tab>Drug 10 17;20 24<tab>lithium mg`) have spans; relations, events and notes do not.

    Args:
        annotations: the content of the .ann file.
        text: the note that it refers to.

    Raises:
        AnnotationError: a line is malformed, or its offsets do not match its text.

    >>> brat_spans("T1\tDrug 5 12\tlithium\n#1\tNote T1\tunsure\n", "Took lithium.")
    [{'type': 'Drug', 'start': 5, 'end': 12}]
    """
    return [span for number, line in enumerate(annotations.split("\n"), start=1) for span in _line(number, line, text)]


def _line(number: int, line: str, text: str) -> Iterator[dict[str, Any]]:
    line = line.removesuffix("\r")
    if not line.startswith("T"):
        return
    _, _, rest = line.partition("\t")
    marked, _, said = rest.partition("\t")
    match = _SPAN.fullmatch(marked.strip())
    if match is None:
        raise AnnotationError(
            f".ann file, line {number}: malformed; expected an id, a type with start and end, and a text"
        )
    bounds = [tuple(map(int, part.split())) for part in match[2].split(";")]
    pieces = [text[start:end] for start, end in bounds]
    if any(not 0 <= start < end <= len(text) for start, end in bounds):
        raise AnnotationError(
            f".ann file, line {number}: found a span outside the note, which has {len(text)} characters"
        )
    # Brat replaces line breaks by spaces, and joins fragments with spaces.
    if said and " ".join(said.split()) != " ".join(" ".join(pieces).split()):
        raise AnnotationError(
            f".ann file, line {number}: its start and end do not match its text; expected characters of the note as "
            "stored in the file"
        )
    yield from ({"type": match[1], "start": start, "end": end} for start, end in bounds)
