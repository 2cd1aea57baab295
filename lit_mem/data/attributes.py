"""Attributes of an example, from the other columns of its row."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.examples import AT_ONCE
from lit_mem.data.sources.table import shown

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_CONTRACT: Final = ("prompt", "completion", "group", "origin")


def attribute_columns(rows: Dataset, skip: Collection[str], name: str) -> list[str]:
    """The columns usable as attributes, except those in `skip`; unreadable ones are logged."""
    from datasets import ClassLabel, Json, LargeList, List, Value

    simple = (Value, ClassLabel, List, LargeList, Json)
    kept = []
    for column, feature in rows.features.items():
        # Images and similar types are not decoded.
        if column in _CONTRACT or column in skip or not isinstance(feature, simple):
            continue
        try:
            one = rows.select_columns([column])
            for start in range(0, len(rows), AT_ONCE):
                one[start : start + AT_ONCE]
        except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond Python's
            log.warning(
                "Column %s of the %s texts cannot be read; it is not used as an attribute.", shown(column), name
            )
            continue
        kept.append(column)
    return kept


def attributes_in(values: Mapping[str, list[Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """For each row its attributes by column."""
    said: list[dict[str, Any]] = [{} for _ in next(iter(values.values()), [])]
    for column in columns:
        for row, value in zip(said, values[column], strict=True):
            attribute = _attribute(value)
            if attribute is not None:
                row[column] = attribute
    return said


def _attribute(value: Any) -> str | float | tuple[str, ...] | None:
    """A column value as an attribute; None if it is empty, or of an unsupported type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, list):
        parts = [part for part in value if part is not None and part != ""]
        return tuple(parts) if parts and all(isinstance(part, str) for part in parts) else None
    return value if isinstance(value, str) and value else None
