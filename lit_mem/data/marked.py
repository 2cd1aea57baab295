"""Whether a column marks spans of its rows' texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lit_mem.data.sources.table import Table
from lit_mem.data.span_forms import marks_of
from lit_mem.errors import DataError

_DEFAULT: Final = "spans"


def spans_option(
    column: str | None, marks: Sequence[Any] | None, completions: Sequence[str], names: Sequence[str]
) -> str | None:
    """The value for `data.spans_column`: the column, or None.

    Args:
        column: a column that seems to hold spans, or None.
        marks: (N,) its values.
        completions: (N,) texts that the spans refer to.
        names: names of all columns.

    Returns:
        The name of the column, if every span is inside its row's text; the option's default, "spans", also if there is
        no such column; None: there is one, but it marks something else.
    """
    if column is not None and marks is not None:
        if all(_fits(mark, len(text)) for mark, text in zip(marks, completions, strict=True)):
            return column
    return None if _DEFAULT in names else _DEFAULT


def _fits(marks: Any, length: int) -> bool:
    try:
        return all(True for _ in marks_of(None if marks is Table.ABSENT else marks, length, ""))
    except DataError:
        return False
