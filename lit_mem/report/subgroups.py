"""Subgroups in a report: whose texts are identified and extracted most, beside all texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

from lit_mem.functional.numbers import shown
from lit_mem.report.history import Validation
from lit_mem.report.intervals import bracketed, ends_of, interval

_SHOWN: Final = 10
_PREFIX: Final = "slice/"
_RATES: Final = {"ngram_rate": "n-gram rate", "exact_rate": "whole suffix", "span_rate": "spans"}


def subgroups_of(last: Validation | None, attack: str | None) -> dict[str, Any] | None:
    """What the report shows of the subgroups that `Slices` logged in the last validation.

    Args:
        last: of the run; None: there is none.
        attack: that the run is judged by; None: there is none.

    Returns:
        text, n (how many subgroups there are), and the highest of them as `columns` and `rows`: by the attack's AUROC,
        then by each rate in turn. None where none was logged.
    """
    metrics: Mapping[str, float] = {} if last is None else last.metrics
    found: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith(_PREFIX) and not math.isnan(value):
            column, group, metric = name.removeprefix(_PREFIX).split("/", 2)
            found.setdefault(f"{column}={group}", {})[metric] = value
    titles = {} if attack is None else {f"{attack}_auroc": f"AUROC of {attack}"}
    titles |= _RATES
    titles = {name: title for name, title in titles.items() if any(name in each for each in found.values())}
    if not titles:
        return None
    order = sorted(found, key=lambda group: [-found[group].get(name, -1.0) for name in titles])
    rows: list[list[Any]] = []
    for group in order[:_SHOWN]:
        own = found[group]
        rows.append([group, *chain(*((own.get(name), _interval(name, own)) for name in titles))])
    columns = ["subgroup", *chain(*((title, "95 % interval") for title in titles.values()))]
    return {"text": _text(found, titles, metrics), "n": len(found), "columns": columns, "rows": rows}


def _text(found: Mapping[str, Mapping[str, float]], titles: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The highest subgroup of each metric beside all texts, in a sentence each."""
    parts = []
    for name, title in titles.items():
        measured = {group: own[name] for group, own in found.items() if name in own}
        group = max(measured, key=lambda each: measured[each])
        if not measured[group]:  # of no subgroup
            continue
        overall = metrics.get(f"mia/{name}" if name.endswith("_auroc") else f"extraction/{name}")
        beside = "" if overall is None else f", {shown(overall)} on all"
        parts.append(
            f"{title}: highest of {group} ({shown(measured[group])}{bracketed(*ends_of(name, found[group]))}{beside})"
        )
    return f"{'; '.join(parts)}." if parts else ""


def _interval(name: str, metrics: Mapping[str, float]) -> str | None:
    return interval(*ends_of(name, metrics)) or None
