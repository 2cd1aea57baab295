"""Collect the sensitive spans of a text: from columns, marks in the text, and detectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lit_mem.data.detectors import Detector
from lit_mem.data.sources.table import shown
from lit_mem.data.span_forms import Mark, deidentified, marks_of

PROMPT_SPANS: Final = "prompt_spans"
"""The column of prompt spans, in characters of the prompt."""


@dataclass(frozen=True)
class Marking:
    """How spans are found.

    Attributes:
        spans_column: column of completion spans, in characters; None: neither it nor `prompt_spans` is read.
        deidentified: whether text between `[**` and `**]` is a span of type "deidentified".
        detector: detects further spans in scored texts, or None.
    """

    spans_column: str | None = "spans"
    deidentified: bool = False
    detector: Detector | None = None

    def columns(self, names: Collection[str]) -> list[str]:
        """The columns of a split that mark spans."""
        wanted = [] if self.spans_column is None else [self.spans_column, PROMPT_SPANS]
        return [name for name in wanted if name in names]

    def pieces(self, part: Mapping[str, list[Any]], i: int, looked_at: bool) -> list[Mark]:
        """Type, start and end of each span of a row, in characters of its prompt and completion together.

        Args:
            part: columns of some rows.
            i: index of the row.
            looked_at: whether to run the detector on it, which may be slow.

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
        """The spans that can be detected in a text itself."""
        found = list(deidentified(text)) if self.deidentified else []
        return found + self.detector(text) if looked_at and self.detector is not None else found
