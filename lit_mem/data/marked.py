"""Whether a column marks pieces of its rows' texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from lit_mem.data.sources.table import Table

_DEFAULT: Final = "spans"


def spans_option(table: Table, column: str | None, completions: Sequence[str]) -> str | None:
    """What `data.spans_column` is to be: the column, or None.

    Args:
        table: the rows.
        column: seems to hold lists of {type, start, end}; None: none does.
        completions: (N,) texts that the spans count in.

    Returns:
        The name of the column, if every span lies in its row's text; the option's default, "spans", also where there
        is no column of this name; None: there is one, and it marks something else.
    """
    if column is not None:
        marks = table.column(column)
        if all(_fits(mark, len(text)) for mark, text in zip(marks, completions, strict=True)):
            return column
    return None if _DEFAULT in table.names else _DEFAULT


def _fits(marks: Any, length: int) -> bool:
    if isinstance(marks, str):
        try:
            marks = json.loads(marks.strip() or "null")
        except (ValueError, RecursionError):
            return False
    if marks is None or marks is Table.ABSENT:
        return True
    return isinstance(marks, list) and all(_is_span(mark, length) for mark in marks)


def _is_span(mark: Any, length: int) -> bool:
    if not isinstance(mark, dict) or not isinstance(mark.get("type"), str) or not mark["type"].strip():
        return False
    start, end = mark.get("start"), mark.get("end")
    return type(start) is int and type(end) is int and 0 <= start < end <= length
