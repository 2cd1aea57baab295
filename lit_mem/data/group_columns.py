"""Columns that name groups, such as patients: they are for splitting, and nothing that is logged is named by them."""

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
"""Share of the rows in which a column that names groups may say something else."""


def without_groups(
    train: Dataset, heldout: Dataset, test: Dataset | None, but: str | None = None
) -> tuple[Dataset, Dataset, Dataset | None, list[str]]:
    """The sets without the columns that name groups, and these columns, which are logged by name, never by value."""
    columns = group_columns([rows for rows in (train, heldout, test) if rows is not None], but)
    if columns:
        log.info("Left out of slices, as they name groups: %s (data.show_groups: true keeps them).", listed(columns))

    def kept(rows: Dataset) -> Dataset:
        return rows.remove_columns([column for column in columns if column in rows.column_names])

    return kept(train), kept(heldout), None if test is None else kept(test), columns


def group_columns(sets: Sequence[Dataset], but: str | None = None) -> list[str]:
    """The columns that name groups: the group column itself, and any with one value a group, as names beside ids.

    Args:
        sets: rows with the columns of `Corpus` and further ones.
        but: a column that is read for something else.

    Returns:
        Names in order; none where each row is a group of its own.
    """
    groups = [group for rows in sets for group in rows["group"][:]]
    if len(set(groups)) == len(groups):
        return []
    columns = dict.fromkeys(column for rows in sets for column in rows.column_names)
    return [c for c in columns if c not in CONTRACT and c != but and _names_groups(sets, c)]


def _names_groups(sets: Sequence[Dataset], column: str) -> bool:
    """Whether it is the group column, or its values and the groups go together one to one in nearly all rows.

    A name that is spelled in two ways in some rows is a name still.
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
