"""A run against its own limits, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lit_mem.callbacks.thresholds import Limits, Threshold
from lit_mem.report.files import callbacks_of
from lit_mem.report.history import History, Validation
from lit_mem.report.numbers import shown

Rule = tuple[str, Limits, str]
"""The callback that holds the limits, these, and whether "any" or "all" of them count."""


def rules_of(config: Mapping[str, Any]) -> Iterator[Rule]:
    """The limits that a run's configuration sets."""
    for path, options in callbacks_of(config):
        kind = path.rpartition(".")[2]
        if kind in ("MemorizationEarlyStopping", "MemorizationCheckpoint") and options.get("thresholds"):
            limits = Limits(list(options["thresholds"]), bool(options.get("lower_bound", False)))
            yield kind, limits, str(options.get("stop_when", "any"))


def verdict(rules: list[Rule], history: History, best: Mapping[str, Any] | None) -> dict[str, Any]:
    """Each limit at the last and at the worst epoch, and what that comes to.

    Args:
        rules: of the run.
        history: of the run; what was measured before training is not judged.
        best: the checkpoint that the run names its best, as the report lists it.

    Returns:
        `state`: "within" (at every epoch), "crossed before" (not at the last), "crossed" (at the last), "not measured"
        or "no limits"; `text`: a few sentences; `limits`: a row each.
    """
    rows: list[dict[str, Any]] = []
    for kind, limits, counted in rules:
        for threshold in limits.thresholds:
            figure = threshold.cautious_name() if limits.lower_bound else threshold.name
            rows.append(
                {"set_by": kind, "counted": counted, "limit": str(threshold)} | _judged(threshold, figure, history)
            )
    if not rows:
        state = "no limits"
        text = (
            "This run had no memorization limits, so there is nothing that it passed or failed. The figures below "
            "say what was measured. To set a limit, give MemorizationEarlyStopping a threshold."
        )
        return {"state": state, "text": text, "limits": rows}
    if not history.trained:
        return {"state": "not measured", "text": "The run ended before anything was measured.", "limits": rows}
    last = history.trained[-1]
    state = _state(rules, rows, history, last)
    return {"state": state, "text": _text(state, rows, last, best), "limits": rows}


def _judged(threshold: Threshold, figure: str, history: History) -> dict[str, Any]:
    measured = [v for v in history.trained if v.get(figure) is not None]
    worst = (max if threshold.above else min)(measured, key=lambda v: v.figures[figure]) if measured else None
    crossed = [v for v in measured if threshold.passed_by(v.figures[figure])]
    last = history.trained[-1].get(figure) if history.trained else None
    state = "not measured" if last is None else "crossed" if threshold.passed_by(last) else "within"
    return {
        "figure": figure,
        "above": threshold.above,
        "bound": threshold.limit,
        "last": last,
        "worst": worst.figures[figure] if worst else None,
        "worst_epoch": worst.epoch if worst else None,
        "first_crossed": crossed[0].epoch if crossed else None,
        "state": state,
    }


def _over(rule: Rule, validation: Validation) -> bool:
    _, limits, counted = rule
    names = [t.cautious_name() if limits.lower_bound else t.name for t in limits.thresholds]
    values = [validation.figures.get(name, math.nan) for name in names]
    passed = [t.passed_by(value) for t, value in zip(limits.thresholds, values, strict=True)]
    return all(passed) if counted == "all" else any(passed)


def _state(rules: list[Rule], rows: list[dict[str, Any]], history: History, last: Validation) -> str:
    if any(_over(rule, last) for rule in rules):
        return "crossed"
    if any(row["state"] == "not measured" for row in rows):
        return "not measured"
    before = any(_over(rule, v) for rule in rules for v in history.trained)
    return "crossed before" if before else "within"


def _text(state: str, rows: list[dict[str, Any]], last: Validation, best: Mapping[str, Any] | None) -> str:
    when = f"After epoch {last.epoch}" if last.epoch else "Before training"
    n = len(rows)
    count = "its limit" if n == 1 else f"all {n} of its limits"
    if state == "within":
        told = f"{when} the model is within {count} on memorization, and it was so after every epoch: {_values(rows)}."
    elif state == "crossed before":
        first = min(row["first_crossed"] for row in rows if row["first_crossed"] is not None)
        told = f"{when} the model is within {count}, but it was over after epoch {first}: {_values(rows)}."
    elif state == "crossed":
        over = [row for row in rows if row["state"] == "crossed"]
        first = min(row["first_crossed"] for row in over)
        since = f", which it first crossed after epoch {first}" if first != last.epoch else ""
        which = "its limit" if n == 1 else f"{len(over)} of its {n} limits"
        told = f"{when} the model memorizes more than it may. It is over {which}{since}: {_values(over)}."
    else:
        blank = [row["figure"] for row in rows if row["state"] == "not measured"]
        told = (
            f"{when} it cannot be told whether the model is within its limits: {', '.join(blank)} was not measured "
            "at this epoch."
        )
    if state in ("crossed", "crossed before") and best is not None and _under(rows, best["figures"]):
        told += f" The run kept a checkpoint that was under every limit: {best['name']}, from epoch {best['epoch']}."
    return told


def _under(rows: list[dict[str, Any]], figures: Mapping[str, float]) -> bool:
    values = [(row, figures.get(row["figure"], math.nan)) for row in rows]
    return all(value <= row["bound"] if row["above"] else value >= row["bound"] for row, value in values)


def _values(rows: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{row['figure']} is {shown(row['last'])}, the limit is {'at most' if row['above'] else 'at least'} "
        f"{shown(row['bound'])}"
        for row in rows
    )
