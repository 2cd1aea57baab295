"""The texts of rows without a Python object per row: read in chunks, or by position."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, overload

if TYPE_CHECKING:
    from datasets import Dataset

AT_ONCE: Final = 10_000
"""Rows per read."""


class RowTexts(Sequence[str]):
    """Some columns of a dataset, joined: by default prompt and completion, which count as one text.

    Args:
        rows: (N,) with these text columns.
        columns: their names.
    """

    def __init__(self, rows: Dataset, *columns: str) -> None:
        self._names = columns or ("prompt", "completion")
        self._rows = rows.select_columns(list(self._names))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return self._joined(self._rows[index])
        return self.at([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    def at(self, places: Sequence[int]) -> list[str]:
        """The texts at given positions, in that order."""
        return self._joined(self._rows[[int(place) for place in places]])

    def _joined(self, part: dict[str, list[Any]]) -> list[str]:
        columns = [part[name] for name in self._names]
        return columns[0] if len(columns) == 1 else ["".join(row) for row in zip(*columns, strict=True)]


class EveryText(Iterable[str]):
    """Re-iterable texts of several sets of rows."""

    def __init__(self, sets: Sequence[Dataset]) -> None:
        self._sets = [RowTexts(rows) for rows in sets]

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __iter__(self) -> Iterator[str]:
        for texts in self._sets:
            yield from texts


def texts_at(texts: Sequence[str], places: Iterable[int]) -> list[str]:
    """The texts at given positions, in that order; for rows, in one read."""
    if isinstance(texts, RowTexts):
        return texts.at(list(places))
    return [texts[place] for place in places]


def contiguous(rows: Dataset) -> Dataset:
    """The same rows, stored contiguously.

    A subset of a dataset is read row by row, through an index table. Texts of more than 2 GiB, which Arrow does not
    copy, are left unchanged.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    places = getattr(rows, "_indices", None)
    if places is None:
        return rows
    try:
        table = rows.data.table.take(places.column(0)).combine_chunks()
    except pa.ArrowException:
        return rows
    return Dataset(InMemoryTable(table), info=rows.info.copy(), split=rows.split, fingerprint=secrets.token_hex(8))
