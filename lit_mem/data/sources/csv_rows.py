"""Read the rows of a csv or tsv file, as programs and spreadsheets write them."""

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
"""What may part columns, the likeliest first."""
_LOOKED_AT: Final = 50
_NAMED: Final = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""The line that spreadsheets put before the header, to say what parts the columns."""
_INDEX: Final = "Unnamed: 0"
"""What pandas calls the nameless column of row numbers that it has written itself."""


def read_csv(name: str, text: str, reading: Reading, usual: str = ",", logs: bool = True) -> Table:
    """Read a header of column names and the rows below it; blank lines are no rows.

    A first column without a name, as pandas writes its index, is called "Unnamed: 0".

    Args:
        name: of the file, for messages.
        text: of the file.
        reading: what parts the columns; else the line `sep=` names it, or header and first rows show it.
        usual: the sign that goes without saying: the comma, or the tab of a tsv file.
        logs: what was seen, where it is not the usual.

    Raises:
        DataError: the file is malformed, or has no header of names, or no rows.
    """
    skipped = 0
    if (match := _NAMED.match(text)) is not None:
        text, skipped = text[match.end() :], 1
    with _fields_of_any_size():
        sign = reading.delimiter or (match[1] if match else _seen(text, usual))
        if logs and sign != usual and reading.delimiter is None:
            log.info("%s: its columns are parted by %r (%s sets another).", name, sign, reading.option("delimiter"))
        try:
            return _rows(name, text, sign, skipped)
        except csv.Error as error:
            if (table := _unquoted(name, text, sign, skipped)) is not None:
                if logs:
                    log.info("%s: its quotes do not pair, so they are read as plain characters.", name)
                return table
            raise DataError(f"{name}, line {error.args[1]}: malformed CSV ({error.args[0]})") from error


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """The csv module refuses fields over 128 KiB unless told otherwise, for the whole process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _seen(text: str, usual: str) -> str:
    """What parts the columns: the sign that gives each of the first rows as many fields as the header, at least two.

    Where several do, the usual sign is taken, then the one of most columns; where none does, the one that parts a
    header that the usual sign does not.
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
    """Fields of the header and of the first rows."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    found: list[int] = []
    try:
        found.extend(len(row) for row in islice((row for row in reader if row), _LOOKED_AT))
    except csv.Error:  # said later, with its line
        pass
    return found


def _unquoted(name: str, text: str, sign: str, skipped: int) -> Table | None:
    """The rows with quotes as plain characters, as files of tabs often have them; None where they are not even then."""
    if sign != "\t":
        return None
    table = _rows(name, text, sign, skipped, csv.QUOTE_NONE)
    if table.bad.n_rows > len(table.numbers) or any('"' in column for column in table.names):
        return None
    return table


def _rows(name: str, text: str, sign: str, skipped: int, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> Table:
    # Strict, for otherwise a quote that is never closed swallows the rest of the file.
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
        raise NoRowsError(f"{name}: holds a header and no rows; expected at least one row")
    return Table(name, "line", numbers, bad, dict(zip(header, columns, strict=True)))


def _checked_header(name: str, number: int, header: list[str]) -> list[str]:
    if len(header) > 1 and not header[0].strip():
        index = _INDEX if _INDEX not in header else f"{_INDEX}.1"
        header = [index, *header[1:]]
    for position, column in enumerate(header, start=1):
        if not column.strip():
            raise DataError(f"{name}, line {number}: column {position} has no name; expected a header of column names")
        if header.count(column) > 1:
            raise DataError(f"{name}, line {number}: column {shown(column)} is there twice; expected each name once")
        if problem := name_problem(column):
            raise DataError(f"{name}, line {number}: the name of column {shown(column)} has {problem}; expected a text")
    return header
