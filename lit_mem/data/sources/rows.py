"""Read the rows of files, keeping their positions for messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Final, cast

from lit_mem.data.sources.bad_rows import BadRows, InFile
from lit_mem.data.sources.columnar import read_columnar, read_saved
from lit_mem.data.sources.csv_rows import read_csv
from lit_mem.data.sources.decoding import NoRowsError, decoded
from lit_mem.data.sources.json_rows import lines_of, read_array, read_lines
from lit_mem.data.sources.notes import read_notes
from lit_mem.data.sources.places import Place, place_of, suffix_of
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.stored import ABSENT, StoredColumn
from lit_mem.data.sources.table import Table

_DEFAULTS: Final = Reading()


def read_table(path: str | Place, reading: Reading = _DEFAULTS) -> Table:
    """Read every row of a file, or of the files of a folder or pattern as one set, by their suffix.

    A `.json` file has an array of objects, or one object per line. Blank lines of json, jsonl and csv, and those at the
    end of a txt file, are skipped.

    Args:
        path: a json, jsonl, csv, tsv, parquet, arrow, txt or md file, relative to the working directory; all except
            parquet and arrow may be compressed (`.jsonl.gz`, `.jsonl.zst`). A txt file has one text per line, an md
            file is one text. A folder or a glob pattern ("notes/**/*.txt") of several files of one kind is one set, in
            which each txt or md file is one text. Or a folder saved by `datasets`.
        reading: options of reading.

    Returns:
        The rows, including a list of unusable ones: no error is raised for these until a text is read. Rows are
        numbered by line or row; in a set of several text files by file and line.

    Raises:
        DataError: the file is missing, empty, not in its encoding or not in its format.
    """
    place = place_of(path) if isinstance(path, str) else path
    if place.kind == "saved":
        return read_saved(place.path, place.files[0])
    if place.kind in ("parquet", "arrow"):
        return read_columnar(place.path, place.files)
    if place.each:
        return read_notes(place, reading)
    if len(place.files) == 1:
        return _read_one(place.path, place.files[0], reading)
    return _joined(place.path, [_part(place, number, reading) for number in range(1, len(place.files) + 1)])


def _part(place: Place, number: int, reading: Reading) -> Table | None:
    """One of several files; None for an empty one, which programs with partitioned output may write."""
    try:
        return _read_one(f"{place.path}, file {number}", place.files[number - 1], reading, logs=number == 1)
    except NoRowsError:
        return None


def _read_one(name: str, file: Path, reading: Reading, logs: bool = True) -> Table:
    suffix, _ = suffix_of(file)
    text = decoded(name, file, reading)
    if suffix in (".csv", ".tsv"):
        return read_csv(name, text, reading, "\t" if suffix == ".tsv" else ",", logs)
    if suffix in (".txt", ".md"):
        return _read_txt(name, text)
    return read_array(name, text) if suffix == ".json" and text.lstrip().startswith("[") else read_lines(name, text)


def _read_txt(name: str, text: str) -> Table:
    # Remove blank lines at the end, but keep spaces of the last non-blank line.
    end = text.find("\n", len(text.rstrip()))
    lines = StoredColumn(lines_of(text if end < 0 else text[:end]))
    return Table(name, "line", range(1, len(lines) + 1), BadRows(name, "line"), {"text": lines})


def _joined(name: str, parts: Sequence[Table | None]) -> Table:
    """Concatenate the rows of several files; a column that some lack is absent there."""
    tables = {number: table for number, table in enumerate(parts, start=1) if table is not None}
    if not tables:
        raise NoRowsError(f"{name}: all of its {len(parts)} files are empty; expected at least one row")
    bad = BadRows(name, next(iter(tables.values())).unit)
    numbers: list[InFile] = []
    columns = {column: StoredColumn(decoded=True) for table in tables.values() for column in table.names}
    for file, table in tables.items():
        bad.include(table.bad, file)
        numbers += [InFile(file, number) for number in cast("Sequence[int]", table.numbers)]
        for column, values in columns.items():
            there = column in table.names
            for value in table.column(column) if there else repeat(ABSENT, len(table.numbers)):
                values.append(value)
    return Table(name, bad.unit, numbers, bad, columns)
