"""What marks the telling pieces of a text: columns of the data, marks in the text, and detectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lit_mem.data.detectors import Detector
from lit_mem.data.sources.table import shown
from lit_mem.data.span_forms import Mark, deidentified, marks_of

PROMPT_SPANS: Final = "prompt_spans"
"""The column of pieces of the prompt, in its characters."""


@dataclass(frozen=True)
class Marking:
    """How pieces are found.

    Attributes:
        spans_column: of pieces of the completion, in its characters; None: neither it nor `prompt_spans` is read.
        deidentified: what `[**` and `**]` enclose is a piece of type "deidentified".
        detector: finds further ones in the texts that are scored; None: there is none.
    """

    spans_column: str | None = "spans"
    deidentified: bool = False
    detector: Detector | None = None

    def columns(self, names: Collection[str]) -> list[str]:
        """Those of a split's columns that mark pieces."""
        wanted = [] if self.spans_column is None else [self.spans_column, PROMPT_SPANS]
        return [name for name in wanted if name in names]

    def pieces(self, part: Mapping[str, list[Any]], i: int, looked_at: bool) -> list[Mark]:
        """Type, start and end of each piece of a row, in characters of its prompt and completion together.

        Args:
            part: columns of some rows.
            i: which of them.
            looked_at: whether the detector looks at it, which may take long.

        Raises:
            DataError: a row's mark is malformed.
        """
        prompt, completion = part["prompt"][i], part["completion"][i]
        found = list[Mark]()
        for column in self.columns(part.keys()):
            where = f"{part['origin'][i]}: field {shown(column)}"
            text, start = (prompt, 0) if column == PROMPT_SPANS else (completion, len(prompt))
            if part[column][i] is not None:
                found += [(kind, a + start, b + start) for kind, a, b in marks_of(part[column][i], len(text), where)]
        return found + self.found_in(prompt + completion, looked_at)

    def found_in(self, text: str, looked_at: bool) -> list[Mark]:
        """The pieces that a text shows by itself."""
        found = list(deidentified(text)) if self.deidentified else []
        return found + self.detector(text) if looked_at and self.detector is not None else found
