"""Read the rows of a csv or tsv file, as written by programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, Literal

from lit_mem.data.sources.bad_rows import BadRows
from lit_mem.data.sources.decoding import NoRowsError
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.stored import StoredColumn
from lit_mem.data.sources.table import Table, name_problem, shown
from lit_mem.errors import DataError

log = logging.getLogger(__name__)

_SIGNS: Final = ",;\t|"
"""Candidate delimiters, most likely first."""
_LOOKED_AT: Final = 50
_NAMED: Final = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""The line before the header with which spreadsheets declare the delimiter."""
_INDEX: Final = "Unnamed: 0"
"""pandas' name for the unnamed column of row numbers that it wrote."""


def read_csv(name: str, text: str, reading: Reading, usual: str = ",", logs: bool = True) -> Table:
    """Read a header of column names and the rows below it; blank lines are skipped.

    An unnamed first column, as pandas writes its index, is named "Unnamed: 0".

    Args:
        name: name of the file, for messages.
        text: content of the file.
        reading: has the delimiter; else it is taken from a line `sep=`, or detected from header and first rows.
        usual: the default delimiter: comma, or tab for a tsv file.
        logs: whether to log a detected delimiter that is not the default.

    Raises:
        DataError: the file is malformed, or has no header or no rows.
    """
    skipped = 0
    if (match := _NAMED.match(text)) is not None:
        text, skipped = text[match.end() :], 1
    with _fields_of_any_size():
        sign = reading.delimiter or (match[1] if match else _seen(text, usual))
        if logs and sign != usual and reading.delimiter is None:
            log.info("%s: detected the delimiter %r (set %s to change it).", name, sign, reading.option("delimiter"))
        try:
            return _rows(name, text, sign, skipped)
        except csv.Error as error:
            if (table := _unquoted(name, text, sign, skipped)) is not None:
                if logs:
                    log.info("%s: its quotes are unbalanced, so they are read as plain characters.", name)
                return table
            raise DataError(f"{name}, line {error.args[1]}: malformed CSV ({error.args[0]})") from error


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Lift the csv module's process-wide limit of 128 KiB per field."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _seen(text: str, usual: str) -> str:
    """Detect the delimiter: the one that gives each of the first rows as many fields as the header, at least two.

    If several do, the default one is used, then the one with most columns; if none does, the one that splits a header
    which the default does not.
    """
    signs = [usual, *(sign for sign in _SIGNS if sign != usual)]
    widths = {sign: _widths(text, sign) for sign in signs}
    parting = [sign for sign in signs if widths[sign] and widths[sign][0] > 1]
    even = [sign for sign in parting if len(set(widths[sign])) == 1]
    if usual in even or not parting:
        return usual
    if even:
        return max(even, key=lambda sign: widths[sign][0])
    return usual if usual in parting else parting[0]


def _widths(text: str, sign: str) -> list[int]:
    """Number of fields of the header and of the first rows."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    found: list[int] = []
    try:
        found.extend(len(row) for row in islice((row for row in reader if row), _LOOKED_AT))
    except csv.Error:  # reported later, with its line
        pass
    return found


def _unquoted(name: str, text: str, sign: str, skipped: int) -> Table | None:
    """The rows with quotes as plain characters, common in tab-separated files; None if that fails too."""
    if sign != "\t":
        return None
    table = _rows(name, text, sign, skipped, csv.QUOTE_NONE)
    if table.bad.n_rows > len(table.numbers) or any('"' in column for column in table.names):
        return None
    return table


def _rows(name: str, text: str, sign: str, skipped: int, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> Table:
    # Strict, since otherwise an unclosed quote consumes the remaining file.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True, quoting=quoting)
    bad, numbers, columns, start = BadRows(name, "line"), list[int](), list[StoredColumn](), 1 + skipped
    header: list[str] | None = None
    try:
        for row in reader:
            number, start = start, reader.line_num + 1 + skipped
            if not row:
                continue
            if header is None:
                header = _checked_header(name, number, row)
                columns = [StoredColumn() for _ in header]
                continue
            bad.n_rows += 1
            if len(row) != len(header):
                bad.add(number, f"found {len(row)} fields, expected {len(header)}")
                continue
            numbers.append(number)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    except csv.Error as error:
        raise csv.Error(str(error), start) from error
    if header is None or not bad.n_rows:
        raise NoRowsError(f"{name}: has a header but no rows; expected at least one row")
    return Table(name, "line", numbers, bad, dict(zip(header, columns, strict=True)))


def _checked_header(name: str, number: int, header: list[str]) -> list[str]:
    if len(header) > 1 and not header[0].strip():
        index = _INDEX if _INDEX not in header else f"{_INDEX}.1"
        header = [index, *header[1:]]
    for position, column in enumerate(header, start=1):
        if not column.strip():
            raise DataError(f"{name}, line {number}: column {position} has no name; expected a header of column names")
        if header.count(column) > 1:
            raise DataError(f"{name}, line {number}: column {shown(column)} occurs twice; expected each name once")
        if problem := name_problem(column):
            raise DataError(
                f"{name}, line {number}: the name of column {shown(column)} has {problem}; expected a plain name"
            )
    return header
