"""Tables: rows by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from lit_mem.data.sources.bad_rows import BadRows, RowNumber
from lit_mem.data.sources.forms import LOOKED_AT, chat_of
from lit_mem.data.sources.stored import ABSENT, RowColumn, StoredColumn, dataset_of, typed
from lit_mem.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_NAMES_LISTED: Final = 20
_NAME_LENGTH: Final = 40
_DECODED: Final = ("Image", "Audio", "Video", "Pdf", "Nifti")
"""Feature types of `datasets` whose values are files."""


class Table:
    """The rows of one file or split, by column.

    Args:
        file: the path given by the user.
        unit: what `numbers` count, from 1: "line", "row" or "file".
        numbers: (N,) position of each row.
        bad: unusable rows so far, with the same file and unit.
        columns: (N,) values by name, `Table.ABSENT` if a row lacks the field.
        dataset: the rows as a typed dataset, used instead of `columns`.
        unread: skipped columns of unsupported types: the type by name.
    """

    ABSENT: ClassVar[Any] = ABSENT
    UNREADABLE: ClassVar[Any] = type("_Unreadable", (), {"__repr__": lambda _: "UNREADABLE"})()

    def __init__(
        self,
        file: str,
        unit: str,
        numbers: Sequence[RowNumber],
        bad: BadRows,
        columns: Mapping[str, Sequence[Any]] | None = None,
        dataset: Dataset | None = None,
        unread: dict[str, str] | None = None,
    ) -> None:
        self.unread = unread or {}
        self.file, self.unit, self.numbers, self.bad = file, unit, numbers, bad
        self._columns, self._dataset = columns or {}, dataset
        bad.n_rows = max(bad.n_rows, len(numbers))

    @classmethod
    def of_dataset(cls, file: str, dataset: Dataset, unread: dict[str, str] | None = None) -> Table:
        """Typed rows, from parquet or from the hub."""
        dataset = dataset.with_format(None)  # not tensors or pandas, in which strings are other types
        numbers = range(1, len(dataset) + 1)
        return cls(file, "row", numbers, BadRows(file, "row"), dataset=dataset, unread=unread)

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return list(self._columns) if self._dataset is None else list(self._dataset.column_names)

    def opened(self, name: str) -> bool:
        """Whether the values of a column are plain: an image or audio would be decoded on access."""
        return self._dataset is None or type(self._dataset.features[name]).__name__ not in _DECODED

    def column(self, name: str) -> Sequence[Any]:
        """The (N,) values of one column, created on access.

        Raises:
            DataError: no row has the field; the message lists the existing columns.
        """
        self.require({name: ""})
        if self._dataset is None:
            return self._columns[name]
        return RowColumn(self._dataset.select_columns([name]), name, _value)

    def require(self, wanted: Mapping[str, str]) -> None:
        """Raise if any of these columns is missing; one message lists all missing ones.

        Args:
            wanted: maps each column to its option; "" if there is no option.

        Raises:
            DataError: some are missing, or of an unsupported type; lists the existing columns.
        """
        lacking = [name for name in wanted if name not in self.names]
        if not lacking:
            return
        self.bad.check()  # A file of broken rows has no columns; report the rows then.
        for name in set(lacking) & self.unread.keys():
            raise DataError(
                f"{self.file}: column {shown(name)} has the unsupported type {self.unread[name]}; expected a column of "
                "strings"
            )
        named = [shown(name) + (f" ({wanted[name]})" if wanted[name] else "") for name in lacking]
        what = "column" if len(lacking) == 1 else "columns"
        raise DataError(
            f"{self.file}: no {what} {', '.join(named)}; found: {listed(self.names)}{self._hint() or self._chats()}"
        )

    def chat(self, name: str) -> str | None:
        """Description of a column of conversations; None for another column."""
        return chat_of(self.first(name))

    def first(self, name: str) -> list[Any]:
        """Some values of a column; for a typed one only if it has texts or lists, so that no image is decoded."""
        if self._dataset is None:
            return list(self._columns[name][:LOOKED_AT])
        from datasets import Json, LargeList, List, Value

        if not isinstance(self._dataset.features[name], List | LargeList | Json | Value):
            return []
        try:
            return list(self._dataset.select_columns([name])[:LOOKED_AT][name])
        except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond Python's
            return []

    def _chats(self) -> str:
        """A hint about a column of conversations, if there is one."""
        for name in self.names:
            if chat := self.chat(name):
                return f"; {shown(name)} holds {chat}; use data.source ChatFiles to read them"
        return ""

    def _hint(self) -> str:
        """A hint about a file that lacks a column."""
        return "; the first line must name the columns" if self.file.lower().endswith((".csv", ".tsv")) else ""

    def keep(self, names: Iterable[str]) -> Dataset:
        """The named columns as a dataset; those of mixed types as JSON strings."""
        if self._dataset is not None:
            return self._dataset.select_columns(list(names))
        return dataset_of({name: _array(self._columns[name]) for name in names})


def _array(values: Sequence[Any]) -> Any:
    return values.arrow() if isinstance(values, StoredColumn) else typed(values)


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond Python's
        return Table.UNREADABLE


def name_problem(name: str) -> str | None:
    r"""Why a string cannot be a column name, or None.

    >>> name_problem("age"), name_problem("a\0")
    (None, 'a NUL')
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return "an unpaired surrogate"
    return "a NUL" if "\0" in name else None


def shown(name: str) -> str:
    """A column name for a message.

    For a long one only the length: it is likely text of a file without a header.

    >>> shown("age"), shown("x" * 50)
    ("'age'", '(a name of 50 characters)')
    """
    return repr(name) if len(name) <= _NAME_LENGTH else f"(a name of {len(name)} characters)"


def listed(names: Sequence[str]) -> str:
    """Column names for a message, at most the first twenty.

    >>> listed(["age", "sex"]), listed([])
    ("'age', 'sex'", 'none')
    """
    more = [f"and {len(names) - _NAMES_LISTED} more"] if len(names) > _NAMES_LISTED else []
    return ", ".join([*map(shown, names[:_NAMES_LISTED]), *more]) or "none"
