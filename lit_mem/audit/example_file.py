"""Per-example scores of one pass, as a table and as a parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_mem.audit.measure import Pass
from lit_mem.audit.table import ScoreTable
from lit_mem.files import atomic, modes
from lit_mem.types import Record


def file_name(run: Pass) -> str:
    """File name of a pass, without its extension: "start", "validate", "test", or epoch and step."""
    if run.stage != "fit":
        return run.stage
    return "start" if run.checking else f"epoch_{run.epoch:04d}_step_{run.step:06d}"


def example_table(
    rows: ScoreTable, records: Mapping[int, Record], epoch: int, step: int, text: bool = False
) -> Any:  # pyarrow.Table
    """Build a table with one row per example.

    Args:
        rows: (N,) per-example columns, NaN where not measured.
        records: metadata of the examples, by example id.
        epoch: training epoch, from 1; 0 before training.
        step: training steps so far.
        text: include the texts, truncated as they were scored.

    Returns:
        A `pyarrow.Table` with the columns of `lit_mem.callbacks.PerExampleTable`; null where not measured or unknown.
    """
    import pyarrow as pa

    ids, n = rows.example_id.tolist(), len(rows)
    known = [records.get(i) for i in ids]
    columns = {
        "example_id": pa.array(ids, pa.int64()),
        "origin": pa.array([(r.origin or None) if r else None for r in known], pa.string()),
        "set": pa.array(["member" if m else "heldout" for m in rows.member.tolist()], pa.string()),
        "epoch": pa.array([epoch] * n, pa.int64()),
        "step": pa.array([step] * n, pa.int64()),
        "duplicates": pa.array([r.duplicates if r else None for r in known], pa.int64()),
    }
    if text:
        columns["text"] = pa.array([r.text if r else None for r in known], pa.string())
    for name, values in rows.columns.items():
        columns[name] = pa.array(values.numpy(), pa.float64(), from_pandas=True)  # NaN: null
    return pa.table(columns)


def write(path: Path, table: Any) -> None:
    """Write a table atomically, so that the file is never left half written.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    modes.make_folder(path.parent)
    with atomic.whole(path) as part, part.open("wb") as file:
        pq.write_table(table, file)
