"""Per-person results of a pass, as a parquet file in the run's folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.example_file import file_name, write
from lit_mem.audit.loop import PassResult
from lit_mem.audit.person import PersonTable

FOLDER: Final = "persons"
"""Subfolder of the run's folder."""

_DIGITS: Final = 2
"""Significant digits of a score: with more, anyone with the tuned model could confirm an exact guess of a text."""


def write_persons(folder: Path, result: PassResult) -> Path | None:
    """Write the persons of a pass; nothing if no two rows share one.

    Args:
        folder: folder of the run.
        result: result of the pass.

    Raises:
        OSError: the file cannot be written.
    """
    persons, run = result.persons, result.run
    if persons is None or not persons.rows:
        return None
    path = folder / FOLDER / f"{file_name(run)}.parquet"
    write(path, person_table(persons, run.epoch, run.step))
    return path


def person_table(persons: PersonTable, epoch: int, step: int) -> Any:  # pyarrow.Table
    """One row per person, members first, most exposed first.

    Args:
        persons: the rows.
        epoch: training epoch, from 1; 0 before training.
        step: training steps so far.

    Returns:
        A `pyarrow.Table` with the columns person, set ("member" or "heldout"), epoch, step, rows, rows_scored and
        extracted; with scores, also `<column>_highest` and `<column>_mean`, to two significant digits; null where not
        measured.
    """
    import pyarrow as pa

    rows, n = persons.rows, len(persons.rows)
    columns = {
        "person": pa.array([row.person for row in rows], pa.string()),
        "set": pa.array(["member" if row.member else "heldout" for row in rows], pa.string()),
        "epoch": pa.array([epoch] * n, pa.int64()),
        "step": pa.array([step] * n, pa.int64()),
        "rows": pa.array([row.rows for row in rows], pa.int64()),
        "rows_scored": pa.array([row.rows_scored for row in rows], pa.int64()),
        "extracted": pa.array([row.extracted for row in rows], pa.int64()),
    }
    if persons.column is not None:
        columns[f"{persons.column}_highest"] = pa.array([_few_digits(row.highest) for row in rows], pa.float64())
        columns[f"{persons.column}_mean"] = pa.array([_few_digits(row.mean) for row in rows], pa.float64())
    return pa.table(columns)


def _few_digits(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
