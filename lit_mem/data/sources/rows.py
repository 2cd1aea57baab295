"""Read the rows of a text file so that every complaint can name its line."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lit_mem.data.sources.arrow_columns import readable_columns
from lit_mem.data.sources.forms import files_in
from lit_mem.data.sources.json_rows import lines_of, read_array, read_lines
from lit_mem.data.sources.stored import StoredColumn
from lit_mem.data.sources.table import BadRows, Table, name_problem, shown
from lit_mem.errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt")

_MOST_LISTED: Final = 20
_PACKED: Final = ".gz"
"""What may follow the other suffixes but `.parquet`."""


def read_table(path: str) -> Table:
    """Read every row of one file; its suffix says how.

    A `.json` file holds an array of objects, or one object a line. Blank lines of json, jsonl and
    csv, and those at the end of a txt file, are no rows.

    Args:
        path: a json, jsonl, csv, parquet or txt file, relative to the working directory; all but parquet may be
            compressed (`.jsonl.gz`).

    Returns:
        The rows, and beside them those that cannot be used: nothing is raised for these until a
        text is asked for.

    Raises:
        DataError: the file is absent, empty, not UTF-8 or not of its format.
    """
    file = _existing(path)
    suffix = file.suffix.lower()
    if packed := suffix == _PACKED:
        suffix = Path(file.stem).suffix.lower()
    if suffix not in SUFFIXES or (packed and suffix == ".parquet"):
        found = suffix + _PACKED * packed
        raise DataError(
            f"{path}: unknown kind of file {found!r}; expected one of {', '.join(SUFFIXES)} (all but .parquet also "
            f"with {_PACKED})"
        )
    if suffix == ".parquet":
        return _read_parquet(path)
    text = _decode(path)
    if suffix == ".json" and text.lstrip().startswith("["):
        return read_array(path, text)
    return {".txt": _read_txt, ".csv": _read_csv}.get(suffix, read_lines)(path, text)


def _existing(path: str) -> Path:
    if not path.strip():
        raise DataError(f"the path of a data file is empty; expected a file ({', '.join(SUFFIXES)})")
    try:
        path.encode()
        file = Path(path).expanduser()
        if file.is_file():
            return file
    except UnicodeEncodeError as error:
        raise DataError(f"{path!a}: the name of this file is not UTF-8; rename it") from error
    except (OSError, RuntimeError) as error:  # a name that is too long; no such user as in ~user
        raise DataError(f"{path}: cannot be found ({getattr(error, 'strerror', None) or error})") from error
    if file.is_dir():
        raise DataError(
            f"{path}: is a folder ({files_in(file)}), and folders are not read yet; expected one file of all texts "
            f"({', '.join(SUFFIXES)})"
        )
    if file.is_symlink():
        raise DataError(f"{path}: is a link to {os.readlink(file)}, which leads to no file")
    if file.exists():
        raise DataError(f"{path}: is a pipe or a device; expected a file ({', '.join(SUFFIXES)})")
    if not file.parent.is_dir():
        raise DataError(f"{path}: no such file; there is no folder {str(file.parent)!r} (seen from {Path.cwd()})")
    here = sorted(entry.name for entry in file.parent.iterdir())
    if len(here) > _MOST_LISTED:  # one a person, maybe: such names are not for a console
        raise DataError(f"{path}: no such file; the folder holds {len(here)} others (seen from {Path.cwd()})")
    close = difflib.get_close_matches(file.name, here, n=3, cutoff=0.6)
    close += [name for name in here if Path(name).stem == file.stem and name not in close]
    hint = f"; the folder holds {', '.join(map(repr, close))}" if close else f" (seen from {Path.cwd()})"
    raise DataError(f"{path}: no such file{hint}")


def _decode(path: str) -> str:
    try:
        raw = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if path.lower().endswith(_PACKED):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: is not a gzip file that can be read ({type(error).__name__})") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        seems = ", which starts as UTF-16 does" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        raise DataError(
            f"{path}, line {line}: found byte 0x{raw[error.start]:02x} at offset {error.start}{seems}; "
            "expected UTF-8 text"
        ) from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path}: is empty; expected at least one row")
    return text


def _read_txt(path: str, text: str) -> Table:
    # Without the blank lines at the end, but with the spaces of the last line that is none.
    end = text.find("\n", len(text.rstrip()))
    lines = StoredColumn(lines_of(text if end < 0 else text[:end]))
    return Table(path, "line", range(1, len(lines) + 1), BadRows(path, "line"), {"text": lines})


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """The csv module refuses fields over 128 KiB unless told otherwise, for the whole process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: str, text: str) -> Table:
    # Strict, for otherwise a quote that is never closed swallows the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    bad, numbers, columns, start = BadRows(path, "line"), list[int](), list[StoredColumn](), 1
    header: list[str] | None = None
    with _fields_of_any_size():
        try:
            for row in reader:
                number, start = start, reader.line_num + 1
                if not row:
                    continue
                if header is None:
                    header = _checked_header(path, number, row)
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
            raise DataError(f"{path}, line {start}: malformed CSV ({error})") from error
    if header is None or not bad.n_rows:
        raise DataError(f"{path}: holds a header and no rows; expected at least one row")
    return Table(path, "line", numbers, bad, dict(zip(header, columns, strict=True)))


def _checked_header(path: str, number: int, header: list[str]) -> list[str]:
    for position, name in enumerate(header, start=1):
        if not name.strip():
            raise DataError(f"{path}, line {number}: column {position} has no name; expected a header of column names")
        if header.count(name) > 1:
            raise DataError(f"{path}, line {number}: column {shown(name)} is there twice; expected each name once")
        if problem := name_problem(name):
            raise DataError(f"{path}, line {number}: the name of column {shown(name)} has {problem}; expected a text")
    return header


def _read_parquet(path: str) -> Table:
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    try:
        # Not `read_table`, which adds columns for folders named like "language=en".
        with pq.ParquetFile(Path(path).expanduser()) as file:
            names = list(file.schema_arrow.names)
            for name in names:
                if names.count(name) > 1:
                    raise DataError(f"{path}: column {shown(name)} is there twice; expected each name once")
            for field in file.schema_arrow:
                if problem := name_problem(field.name) or name_problem(str(field.type)):
                    raise DataError(f"{path}: column {shown(field.name)} has a name with {problem}; expected a text")
            arrow, unread = readable_columns(path, file.read())
        dataset = Dataset(InMemoryTable(arrow))
    except DataError:
        raise
    except Exception as error:  # the libraries raise many kinds for a damaged file, some of which quote it
        raise DataError(f"{path}: is not a parquet file that can be read ({type(error).__name__})") from error
    if not arrow.num_rows:
        raise DataError(f"{path}: is empty; expected at least one row")
    return Table.of_dataset(path, dataset, unread)
