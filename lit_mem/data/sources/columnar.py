"""Read typed rows: parquet and Arrow files, and folders saved by `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.sources.arrow_columns import plain_columns, readable_columns
from lit_mem.data.sources.decoding import NoRowsError
from lit_mem.data.sources.table import Table, listed, name_problem, shown
from lit_mem.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNAR: Final = (".parquet", ".arrow")

_ARROW_FILE: Final = b"ARROW1"


def read_columnar(name: str, files: Sequence[Path]) -> Table:
    """The concatenated rows of parquet files, or of Arrow files (in either of the two formats).

    With several files, a column that some lack is null there, and compatible types are unified, such as integers and
    floats. Dictionaries (pandas' categories) become their values.

    Args:
        name: their name in messages.
        files: at least one file, with a suffix in `COLUMNAR`.

    Raises:
        DataError: a file is damaged; there are no rows; a column occurs twice, or has incompatible types.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    kind = files[0].suffix.lower().removeprefix(".")
    names = [name] if len(files) == 1 else [f"{name}, file {number}" for number in range(1, len(files) + 1)]
    tables = [
        _checked(one, _opened(one, kind, partial(_READERS[kind], file))) for one, file in zip(names, files, strict=True)
    ]
    tables = _opened(name, kind, lambda: [plain_columns(table) for table in tables])
    arrow, unread = readable_columns(name, _joined(name, tables))
    dataset = _opened(name, kind, lambda: Dataset(InMemoryTable(arrow)))
    if not arrow.num_rows:
        raise NoRowsError(f"{name}: is empty; expected at least one row")
    return Table.of_dataset(name, dataset, unread)


def read_saved(name: str, folder: Path) -> Table:
    """The rows of a folder written by `Dataset.save_to_disk`.

    Raises:
        DataError: it cannot be read, or has no rows.
    """
    from datasets import load_from_disk

    def load() -> Any:
        dataset = load_from_disk(str(folder)).with_format(None)
        dataset.data.validate(full=True)
        return dataset

    dataset = _opened(name, "folder of `datasets`", load)
    if not hasattr(dataset, "features"):
        raise DataError(f"{name}: contains several sets; expected the folder of one")
    if not len(dataset):
        raise NoRowsError(f"{name}: is empty; expected at least one row")
    return Table.of_dataset(name, dataset)


def _opened(name: str, kind: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # the libraries raise many exception types for a damaged file, some of which quote it
        article = "an" if kind == "arrow" else "a"
        what = kind if " " in kind else f"{kind} file"
        raise DataError(f"{name}: is not {article} {what} that can be read ({type(error).__name__})") from error


def _parquet(file: Path) -> pa.Table:
    import pyarrow.parquet as pq

    # `read_table` would add columns for folders named like "language=en".
    with pq.ParquetFile(file) as opened:
        return opened.read()


def _arrow(file: Path) -> pa.Table:
    """Read the stream format, which `datasets` writes, or the file format, also called Feather."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
        source.seek(0)
        with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source) as reader:
            table = reader.read_all()
    table.validate(full=True)  # Offsets in a damaged file may point beyond its end.
    return table


_READERS: Final[dict[str, Callable[[Path], Any]]] = {"parquet": _parquet, "arrow": _arrow}


def _checked(name: str, table: pa.Table) -> pa.Table:
    names = table.column_names
    for field in table.schema:
        if names.count(field.name) > 1:
            raise DataError(f"{name}: column {shown(field.name)} occurs twice; expected each name once")
        if problem := name_problem(field.name) or name_problem(str(field.type)):
            raise DataError(f"{name}: column {shown(field.name)} has a name with {problem}; expected a plain name")
    return table


def _joined(name: str, tables: list[pa.Table]) -> pa.Table:
    import pyarrow as pa

    if len(tables) == 1:
        return tables[0]
    same = all(table.schema.equals(tables[0].schema) for table in tables)
    if not same:  # The metadata of `datasets` for the columns of one file may not apply to all.
        tables = [table.replace_schema_metadata(None) for table in tables]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        types: dict[str, set[str]] = {}
        for table in tables:
            for field in table.schema:
                types.setdefault(field.name, set()).add(str(field.type))
        unlike = listed([column for column, kinds in types.items() if len(kinds) > 1])
        raise DataError(f"{name}: its files differ in the types of {unlike}; expected one type per column") from error
