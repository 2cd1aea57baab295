"""Where memorization lives: what falls when a part of the adapter is switched off, as `where.json` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lit_mem.errors import DataError
from lit_mem.report.files import read_json

FIGURES: Final = {
    "auroc": "AUROC of the attack",
    "perplexity_members": "Perplexity of the members",
    "ngram_rate": "N-gram rate of the members",
}


def read_where(path: Path) -> dict[str, Any] | None:
    """What the file says; None where there is none.

    Raises:
        DataError: it lacks something.
    """
    told = read_json(path)
    if told is None:
        return None
    keys = ("members", "heldout", "baseline", "all_off", "matrices", "layers", "layer_matrix", "by_matrix", "by_layer")
    missing = [key for key in keys if not isinstance(told, dict) or key not in told]
    if missing:
        raise DataError(f"{path}: there is no {missing[0]}; expected the file of the study of layers and matrices")
    for name, rows in told["layer_matrix"].items():
        n_rows, n_columns = len(told["layers"]), len(told["matrices"])
        if rows is not None and (len(rows) != n_rows or any(len(row) != n_columns for row in rows)):
            raise DataError(f"{path}: layer_matrix.{name} is not {n_rows} layers by {n_columns} matrices")
    found: dict[str, Any] = told
    return found
