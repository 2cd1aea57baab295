"""The few metrics that summarise a run, before training, at its best checkpoint and at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lit_mem.audit.glossary import explained, key_metrics, of_base
from lit_mem.report.history import History, Validation


def key_rows(history: History, attack: str | None, best: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each metric of the table.

    Args:
        history: of the run.
        attack: that the run is judged by; None: there is none.
        best: the best checkpoint, as the report lists it; None: there is none.
    """
    rows = []
    start, last = history.start, history.last

    def at(validation: Validation | None, name: str) -> float | None:
        return None if validation is None else validation.get(name)

    for name in key_metrics(history.names, attack, _strongest(last)):
        if history.audit and name.endswith("_base"):
            continue  # has its own column
        title, meaning = explained(name)
        rows.append(
            {
                "metric": name,
                "title": title,
                "meaning": meaning,
                "start": at(start, name),
                "base": at(last, of_base(name)) if history.audit else None,
                "best": best["metrics"].get(name) if best else None,
                "last": at(last, name),
                "last_low": at(last, f"{name}_low"),
                "last_high": at(last, f"{name}_high"),
            }
        )
    return rows


def _strongest(last: Validation | None) -> str | None:
    """The attack with the highest AUROC of the last validation."""
    areas = {} if last is None else {n: last.get(n) for n in last.metrics if re.fullmatch(r"mia/.+_auroc", n)}
    found = max(((value, name) for name, value in areas.items() if value is not None), default=None)
    return None if found is None else found[1].removeprefix("mia/").removesuffix("_auroc")
