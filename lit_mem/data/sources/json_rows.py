"""Read rows of JSON: an array of objects, or one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, Final

from lit_mem.data.sources.bad_rows import BadRows
from lit_mem.data.sources.decoding import NoRowsError
from lit_mem.data.sources.stored import ABSENT, AT_ONCE, StoredColumn
from lit_mem.data.sources.table import Table, name_problem, shown
from lit_mem.errors import DataError

_DEEPEST: Final = 100
"""Maximum nesting of lists and objects in a row; libraries that walk such values recurse once per level."""


def lines_of(text: str) -> Iterator[str]:
    """Lines as counted by editors; `splitlines` would also split at U+2028 inside a string."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end].removesuffix("\r")
        start = end + 1
    yield text[start:].removesuffix("\r")


class _Rows:
    """Collects rows into columns; a missing key is marked as absent."""

    def __init__(self, path: str, unit: str, decoded: bool = True) -> None:
        self.bad = BadRows(path, unit)
        self.path, self.unit = path, unit
        self.numbers: list[int] = []
        self.columns: dict[str, StoredColumn] = {}
        self._decoded, self._open = decoded, list[dict[str, Any]]()
        self.repeated: list[str] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated.append(next(name for name in names if names.count(name) > 1))
        return made

    def add(self, number: int, row: object) -> None:
        """Add one decoded JSON value as a row."""
        self.bad.n_rows += 1
        repeated, self.repeated = self.repeated, []
        if not isinstance(row, dict):
            self.bad.add(number, f"found {type(row).__name__}, expected an object")
        elif repeated:
            self.bad.add(number, f"field {shown(repeated[0])} occurs twice, expected once")
        elif (wrong := next(((name, problem) for name in row if (problem := name_problem(name))), None)) is not None:
            self.bad.add(number, f"the name of field {shown(wrong[0])} has {wrong[1]}, expected a plain name")
        elif _is_too_deep(row):
            self.bad.add(number, f"found a value nested more than {_DEEPEST} levels deep")
        else:
            self.numbers.append(number)
            self._open.append(row)
            if len(self._open) >= AT_ONCE:
                self._pack()

    def _pack(self) -> None:
        """Move rows into columns, so that few are Python objects at a time."""
        before = len(self.numbers) - len(self._open)
        for name in dict.fromkeys(name for row in self._open for name in row):
            if name not in self.columns:
                self.columns[name] = StoredColumn(repeat(ABSENT, before), self._decoded)
        for name, column in self.columns.items():
            column.extend([row.get(name, ABSENT) for row in self._open])
        self._open = []

    def table(self) -> Table:
        """The rows as columns: all names of any row, in order of appearance."""
        self._pack()
        return Table(self.path, self.unit, self.numbers, self.bad, self.columns)


def row_table(name: str, rows: Iterable[object]) -> Table:
    """Rows in memory, such as decoded JSON; those that are not dictionaries are recorded in the table."""
    made = _Rows(name, "row", decoded=False)
    for number, row in enumerate(rows, start=1):
        made.add(number, row)
    return made.table()


def _is_too_deep(row: dict[str, Any]) -> bool:
    level: list[Any] = [row]
    for _ in range(_DEEPEST):
        nested = [value for value in level if isinstance(value, dict | list)]
        if not nested:
            return False
        level = [inner for value in nested for inner in (value.values() if isinstance(value, dict) else value)]
    return True


def _problem(error: Exception, column: int | None = None) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"column {column or error.colno}: malformed JSON ({error.msg})"
    if isinstance(error, RecursionError):
        return "malformed JSON (nested too deeply)"
    return "malformed JSON (a number with too many digits)"


def read_lines(path: str, text: str) -> Table:
    """Read one object per line; blank lines are skipped, malformed ones recorded in the table.

    Raises:
        DataError: the file is one object that spans several lines.
    """
    rows = _Rows(path, "line")
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        try:
            row = rows.decoder.decode(line)
        except (ValueError, RecursionError) as error:
            if not rows.bad.n_rows and _is_one_value(text):
                raise DataError(
                    f"{path}, line {number}: the file has one object over several lines; "
                    "expected an array of objects or one object per line"
                ) from error
            rows.bad.n_rows += 1
            rows.bad.add(number, _problem(error))
            rows.repeated.clear()
        else:
            rows.add(number, row)
    return rows.table()


def _is_one_value(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_array(path: str, text: str) -> Table:
    """Read an array of objects, element by element, so that each error has its position.

    Raises:
        DataError: the array is malformed or empty.
    """
    rows = _Rows(path, "row")
    end = len(text)

    def skip(at: int) -> int:
        while at < end and text[at] in " \t\r\n":
            at += 1
        return at

    def fail(at: int, problem: str) -> DataError:
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        return DataError(f"{path}, line {line}, column {column}: malformed JSON ({problem})")

    at = skip(skip(0) + 1)
    while at < end and text[at] != "]":
        try:
            row, after = rows.decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise fail(error.pos, error.msg) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, row {rows.bad.n_rows + 1}: {_problem(error)}") from error
        rows.add(rows.bad.n_rows + 1, row)
        at = skip(after)
        if at < end and text[at] == ",":
            at = skip(at + 1)
            if at < end and text[at] == "]":
                raise fail(at, "a row must follow the comma")
        elif at < end and text[at] != "]":
            raise fail(at, "expected ',' or ']'")
    if at >= end:
        raise fail(end, "the array is not closed")
    if skip(at + 1) < end:
        raise fail(skip(at + 1), "extra data after the array")
    if not rows.bad.n_rows:
        raise NoRowsError(f"{path}: the array is empty; expected at least one row")
    return rows.table()
