"""The files of a sweep as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_mem.errors import DataError
from lit_mem.functional.planning import Scored
from lit_mem.report.files import read_json, read_parquet
from lit_mem.report.history import Validation
from lit_mem.report.subject import scored_of


def read_sweep(path: Path) -> dict[str, Any]:
    """The sweep and its trials.

    Raises:
        DataError: there is no such file, or it lacks a key.
    """
    found: Any = read_json(path)
    for key in ("name", "axes", "seeds", "trials"):
        if not isinstance(found, dict) or key not in found:
            raise DataError(f"{path}: there is no {key}; expected what `sweep` writes")
    for number, trial in enumerate(found["trials"], start=1):
        for key in ("trial", "values", "seed", "status"):
            if key not in trial:
                raise DataError(f"{path}: trial {number} has no {key}; expected what `sweep` writes")
    sweep: dict[str, Any] = found
    return sweep


def read_histories(path: Path, labels: list[str]) -> tuple[dict[str, list[Validation]], set[str]]:
    """Each trial's validations in order, and every name that was logged.

    Args:
        path: of `results.parquet`; absent until a trial has measured.
        labels: of the sweep's axes, which are columns too.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    if not path.is_file():
        return {}, set()
    rows = read_parquet(path).to_pylist()
    found: dict[str, list[Validation]] = {}
    names: set[str] = set()
    for number, row in enumerate(rows, start=1):
        missing = [key for key in ("trial", "epoch") if row.get(key) is None]
        if missing:
            raise DataError(f"{path}, row {number}: there is no {missing[0]}; expected what `sweep` writes")
        skip = {"trial", "seed", "epoch", "step", *labels}
        metrics = {n: float(v) for n, v in row.items() if n not in skip and isinstance(v, int | float)}
        names |= set(metrics)
        step = row.get("step")
        found.setdefault(row["trial"], []).append(Validation(int(row["epoch"]), int(step or 0), metrics))
    for validations in found.values():
        validations.sort(key=lambda v: (v.epoch, v.step))
    return found, names


def read_findings(path: Path) -> dict[str, Any]:
    """What the sweep found, and its guidance; {} where there is no file.

    Raises:
        DataError: it has another form.
    """
    found: Any = read_json(path)
    if found is None:
        return {}
    advice = found.get("guidance") if isinstance(found, dict) else 0
    whole = advice is None or (isinstance(advice, dict) and isinstance(advice.get("limit", ""), int | float | None))
    if not whole or not _with_levels(found.get("findings")):
        raise DataError(f"{path}: is not as this version writes it; run the sweep's command again to rewrite it")
    findings: dict[str, Any] = found
    return findings


def _with_levels(findings: Any) -> bool:
    """Whether each has the level at which it was tested; without it a verdict would look too certain."""
    return isinstance(findings, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("level"), float)
        and isinstance(one.get("n_findings"), int)
        and {"seeds_to_decide", "more_than_seeds"} <= set(one)
        for one in findings
    )


def trial_scored(folder: Path, trial: Mapping[str, Any]) -> Scored | None:
    """How many texts a trial scored; None where its folder does not record it."""
    path = folder / str(trial.get("folder") or "") / "checks.json"
    checks = read_json(path) if trial.get("folder") else None
    return scored_of(checks if isinstance(checks, dict) else None, path)
