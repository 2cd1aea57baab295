"""The report of a sweep as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.thresholds import Threshold
from lit_mem.files.software import versions
from lit_mem.functional.interval import student_interval
from lit_mem.privacy.carried import of_several
from lit_mem.report.certainty import together
from lit_mem.report.gate import check_known, gate, not_passed
from lit_mem.report.history import Validation
from lit_mem.report.sweep_files import read_findings, read_histories, read_sweep, trial_scored

SCHEMA: Final = 1
_METRICS: Final[tuple[str, ...]] = (
    "trainable_parameters",
    "val/perplexity",
    "memorization/perplexity_members",
    "mia/reference_auroc",
    "mia/loss_auroc",
    "mia/reference_tpr_at_fpr_0.01",
    "extraction/ngram_rate",
    "extraction/exact_rate",
    "extraction/span_rate",
)
HEATS: Final = ("mia/reference_auroc", "val/perplexity", "extraction/ngram_rate")
CURVES: Final = ("val/perplexity", "mia/reference_auroc", "extraction/ngram_rate")


def sweep_report(folder: Path, fail_on: Iterable[Threshold] = ()) -> dict[str, Any]:
    """Read a sweep's folder.

    Args:
        folder: holds `sweep.json`, and `results.parquet` once a trial has measured.
        fail_on: conditions that fail the report where a trial's last validation meets them.

    Raises:
        DataError: a file of the folder is damaged.
        ConfigError: a condition is on a metric that no trial logged.
    """
    sweep = read_sweep(folder / "sweep.json")
    axes: list[dict[str, Any]] = sweep["axes"]
    labels = [axis["label"] for axis in axes]
    histories, names = read_histories(folder / "results.parquet", labels)
    wanted = list(fail_on)
    check_known(wanted, names, "the sweep")
    metrics = [name for name in _METRICS if name in names]
    configurations = _configurations(sweep["trials"], labels, histories, metrics)
    findings = read_findings(folder / "findings.json")
    # A trial that failed before its first validation left no model to judge.
    done = [trial for trial in sweep["trials"] if trial["status"] != "failed" or trial["trial"] in histories]
    judged = [
        row
        for trial in done
        for row in not_passed(wanted, _last(histories, trial), trial["trial"], trial_scored(folder, trial))
    ]
    return {
        "schema": SCHEMA,
        "kind": "sweep",
        "name": sweep["name"],
        "question": sweep.get("question", ""),
        "command": sweep.get("command", ""),
        "axes": axes,
        "seeds": sweep["seeds"],
        "verdict": {"state": _counts(sweep["trials"]), "text": _text(sweep, findings, folder)},
        "metrics": metrics,
        "configurations": configurations,
        "heat_maps": _heat_maps(axes, configurations, metrics),
        "curves": _curves(labels, sweep["trials"], histories, names),
        "front": _front(configurations),
        "findings": findings.get("findings", []),
        "guidance": findings.get("guidance"),
        "trials": [
            {key: trial.get(key) for key in ("trial", "values", "seed", "status", "error", "folder")}
            for trial in sweep["trials"]
        ],
        "gate": gate(wanted, judged),
        "versions": versions(),
    }


def _last(histories: Mapping[str, list[Validation]], trial: Mapping[str, Any]) -> Validation | None:
    validations = histories.get(trial["trial"])
    return validations[-1] if validations else None


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds, with the 95 % interval of Student's t; no interval from one seed.

    >>> spread([1.0])
    {'mean': 1.0, 'low': None, 'high': None, 'n': 1}
    """
    kept = [value for value in values if math.isfinite(value)]
    n = len(kept)
    if n < 2:
        return {"mean": kept[0] if kept else None, "low": None, "high": None, "n": n}
    mean, low, high = student_interval(kept)
    return {"mean": mean, "low": low, "high": high, "n": n}


def _configurations(
    trials: list[dict[str, Any]], labels: list[str], histories: Mapping[str, list[Validation]], metrics: list[str]
) -> list[dict[str, Any]]:
    """A row for each combination of values, over its finished trials."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(tuple(str(trial["values"].get(label)) for label in labels), []).append(trial)
    rows = []
    for group in groups.values():
        lasts = [last for trial in group if trial["status"] == "done" and (last := _last(histories, trial)) is not None]
        values = {name: [v.metrics.get(name, math.nan) for v in lasts] for name in metrics}
        rows.append(
            {
                "values": {label: group[0]["values"].get(label) for label in labels},
                "n_trials": len(group),
                "n_done": len(lasts),
                "metrics": {name: spread(found) for name, found in values.items()},
            }
        )
    return rows


def _heat_maps(
    axes: list[dict[str, Any]], configurations: list[dict[str, Any]], metrics: list[str]
) -> list[dict[str, Any]]:
    """Tables of the first two axes; other axes are averaged over."""
    if len(axes) < 2:
        return []
    rows, columns = axes[0], axes[1]
    maps = []
    for name in (one for one in HEATS if one in metrics):
        cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for one in configurations:
            key = str(one["values"].get(rows["label"])), str(one["values"].get(columns["label"]))
            if one["metrics"][name]["mean"] is not None:
                cells.setdefault(key, []).append(one["metrics"][name])
        means = {key: math.fsum(found["mean"] for found in group) / len(group) for key, group in cells.items()}
        low, high = min(means.values(), default=0.0), max(means.values(), default=1.0)
        table = []
        for row in rows["values"]:
            line = []
            for column in columns["values"]:
                key = str(row), str(column)
                value, group = means.get(key), cells.get(key, [])
                share = 0.0 if value is None or high == low else (value - low) / (high - low)
                ends = group[0] if len(group) == 1 and group[0]["low"] is not None else None
                line.append(
                    {"value": value, "share": share, "low": ends and ends["low"], "high": ends and ends["high"]}
                )
            table.append([str(row), line])
        maps.append(
            {
                "metric": name,
                "row": rows["label"],
                "column": columns["label"],
                "columns": [str(v) for v in columns["values"]],
                "rows": table,
            }
        )
    return maps


def _curves(
    labels: list[str], trials: list[dict[str, Any]], histories: Mapping[str, list[Validation]], names: set[str]
) -> list[dict[str, Any]]:
    """For each axis and metric a curve over the epochs for each value, the mean over all trials that have it."""
    found = []
    for label, metric in product(labels, [name for name in CURVES if name in names]):
        lines: dict[str, dict[int, list[float]]] = {}
        for trial in trials:
            by_epoch = {v.epoch: v.get(metric) for v in histories.get(trial["trial"], [])}
            line = lines.setdefault(str(trial["values"].get(label)), {})
            for epoch, value in by_epoch.items():
                if value is not None and trial["status"] == "done":
                    line.setdefault(epoch, []).append(value)
        curves = [
            {"value": value, "epochs": sorted(line), "points": [spread(line[epoch]) for epoch in sorted(line)]}
            for value, line in lines.items()
        ]
        found.append({"axis": label, "metric": metric, "lines": [one for one in curves if one["epochs"]]})
    return found


def _front(configurations: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Configurations that no other beats in both held-out perplexity and the attack; None without an attack."""
    points = []
    for row in configurations:
        found = [row["metrics"].get(name, {}).get("mean") for name in ("val/perplexity", "mia/reference_auroc")]
        if None not in found:
            points.append({"values": row["values"], "perplexity": found[0], "memorization": found[1]})
    if not points:
        return None
    for point in points:
        point["on_front"] = not any(
            other["perplexity"] <= point["perplexity"]
            and other["memorization"] <= point["memorization"]
            and (other["perplexity"], other["memorization"]) != (point["perplexity"], point["memorization"])
            for other in points
        )
    return {"metric": "mia/reference_auroc", "points": points}


def _counts(trials: list[dict[str, Any]]) -> str:
    unfinished = [trial for trial in trials if trial["status"] in ("running", "pending")]
    if unfinished:
        return "unfinished"
    return "some failed" if any(trial["status"] == "failed" for trial in trials) else "done"


def _text(sweep: Mapping[str, Any], findings: Mapping[str, Any], folder: Path) -> str:
    n = {
        status: sum(t["status"] == status for t in sweep["trials"])
        for status in ("done", "failed", "running", "pending")
    }
    text = f"{n['done']} of {len(sweep['trials'])} trials are done"
    text += f", {n['failed']} failed" if n["failed"] else ""
    text += f", {n['running'] + n['pending']} are not finished" if n["running"] + n["pending"] else ""
    text += "."
    verdicts = [one["verdict"] for one in findings.get("findings", [])]
    if verdicts:
        kinds = [f"{verdicts.count(kind)} {kind}" for kind in dict.fromkeys(verdicts)]
        text += f" Findings on this model and data: {'; '.join(kinds)} ({together(findings['findings']).rstrip('.')})."
    added = of_several(folder)
    return f"{text} {added}." if added else text
