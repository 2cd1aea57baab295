"""Skip, and log, columns of Arrow types that `datasets` does not support (maps, UUIDs, list views)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from lit_mem.data.sources.table import listed

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_TYPE_LENGTH: Final = 60


def readable_columns(path: str, table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """The readable columns, and the types of the others by name, which are logged.

    Args:
        path: the path given by the user.
        table: all of its columns.
    """
    unread = {field.name: _short(str(field.type)) for field in table.schema if not _is_known(field)}
    if not unread:
        return table, {}
    log.warning(
        "%s: column %s has an unsupported type (%s); skipped.",
        path, listed(list(unread)), ", ".join(dict.fromkeys(unread.values())),
    )  # fmt: skip
    kept = [name for name in table.column_names if name not in unread]
    return table.select(kept).replace_schema_metadata(None), unread


def plain_columns(table: pa.Table) -> pa.Table:
    """Decode compact types: dictionaries (pandas' categories), run-end encoding and string views."""
    import pyarrow as pa

    def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = column.type
        if pa.types.is_run_end_encoded(kind):
            chunks = [pa.compute.run_end_decode(chunk) for chunk in column.chunks]
            return plain(pa.chunked_array(chunks, kind.value_type))
        if pa.types.is_dictionary(kind):
            return plain(column.cast(kind.value_type))
        return column.cast(pa.string()) if kind == pa.string_view() else column

    columns = [plain(column) for column in table.columns]
    if [column.type for column in columns] == table.schema.types:
        return table
    return pa.Table.from_arrays(columns, names=table.column_names)


def _is_known(field: pa.Field) -> bool:
    import pyarrow as pa
    from datasets import Features

    try:
        Features.from_arrow_schema(pa.schema([field]))
    except Exception:  # `datasets` raises several exception types for unsupported types
        return False
    return True


def _short(kind: str) -> str:
    return kind if len(kind) <= _TYPE_LENGTH else f"{kind[:_TYPE_LENGTH]}…"
