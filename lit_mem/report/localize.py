"""Where in a model memorization is: the metrics with a part of the adapter switched off, as `localize` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lit_mem.errors import DataError
from lit_mem.report.files import read_json

METRICS: Final = {
    "auroc": "AUROC of the attack",
    "perplexity_members": "Perplexity of the members",
    "ngram_rate": "N-gram rate of the members",
}
_FILES: Final = ("localize.json", "where.json")
"""The second in folders of earlier versions."""
_KEYS: Final = (
    "members",
    "heldout",
    "baseline",
    "all_off",
    "matrices",
    "layers",
    "layer_matrix",
    "by_matrix",
    "by_layer",
)


def read_localized(folder: Path) -> dict[str, Any] | None:
    """The content of the file; None where there is none.

    Args:
        folder: of the run.

    Raises:
        DataError: the file lacks a key, or a table has another shape.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    found: Any = read_json(path)
    missing = [key for key in _KEYS if not isinstance(found, dict) or key not in found]
    if missing:
        raise DataError(f"{path}: there is no {missing[0]}; expected what `localize` writes")
    for name, rows in found["layer_matrix"].items():
        n_rows, n_columns = len(found["layers"]), len(found["matrices"])
        if rows is not None and (len(rows) != n_rows or any(len(row) != n_columns for row in rows)):
            raise DataError(f"{path}: layer_matrix.{name} is not {n_rows} layers by {n_columns} matrices")
    localized: dict[str, Any] = found
    return localized
