"""Columns that identify groups, such as patients: used for splitting, never in logged names."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.sources.fields import CONTRACT, group_of
from lit_mem.data.sources.table import listed

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_FEW_ROWS: Final = 10_000
_SPELLINGS: Final = 0.05
"""Share of rows in which a group column may deviate from the groups."""


def without_groups(
    train: Dataset, heldout: Dataset, test: Dataset | None, skip: str | None = None
) -> tuple[Dataset, Dataset, Dataset | None, list[str]]:
    """The sets without the columns that identify groups, and the names of these columns."""
    columns = group_columns([rows for rows in (train, heldout, test) if rows is not None], skip)
    if columns:
        log.info(
            "Not used for slices, since they identify groups: %s (data.show_groups: true keeps them).", listed(columns)
        )

    def kept(rows: Dataset) -> Dataset:
        return rows.remove_columns([column for column in columns if column in rows.column_names])

    return kept(train), kept(heldout), None if test is None else kept(test), columns


def group_columns(sets: Sequence[Dataset], skip: str | None = None) -> list[str]:
    """The columns that identify groups: the group column, and any with one value per group, as names beside ids.

    Args:
        sets: rows with the columns of `Corpus` and others.
        skip: a column used for something else.

    Returns:
        Names in order; empty if each row is its own group.
    """
    groups = [group for rows in sets for group in rows["group"][:]]
    if len(set(groups)) == len(groups):
        return []
    columns = dict.fromkeys(column for rows in sets for column in rows.column_names)
    return [c for c in columns if c not in CONTRACT and c != skip and _names_groups(sets, c)]


def _names_groups(sets: Sequence[Dataset], column: str) -> bool:
    """Whether it is the group column, or maps one to one to the groups in nearly all rows.

    Tolerates names that are spelled differently in some rows.
    """
    from datasets import ClassLabel, Json, LargeList, List, Value

    of_value: dict[Hashable, str] = {}
    of_group: dict[str, Hashable] = {}
    other_name = other_pair = 0
    allowed = _SPELLINGS * sum(map(len, sets))
    for rows in sets:
        kind = rows.features.get(column)
        if kind is None:
            continue
        if not isinstance(kind, Value | ClassLabel | Json | List | LargeList):
            return False
        for start in range(0, len(rows), _FEW_ROWS):
            part = rows.select_columns([column, "group"])[start : start + _FEW_ROWS]
            for value, group in zip(part[column], part["group"], strict=True):
                if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                    continue
                other_name += group_of(value)[0] != group
                key = _key(value)
                other_pair += of_value.setdefault(key, group) != group or of_group.setdefault(group, key) != key
                if min(other_name, other_pair) > allowed:
                    return False
    return bool(of_value)


def _key(value: Any) -> Hashable:
    return repr(value) if isinstance(value, list | dict) else value
