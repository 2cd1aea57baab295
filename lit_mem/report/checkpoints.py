"""The checkpoints that a run has kept, each with its metrics and its state by the run's limits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.judging import Rule, judge_all
from lit_mem.report.chain import chain_of
from lit_mem.report.files import read_json
from lit_mem.report.history import History
from lit_mem.report.judgement import NAMES

_CHECKPOINTS: Final = ("best", "safe", "last")


def kept_checkpoints(folder: Path, history: History, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """The checkpoints that a run, or one that it was resumed from, still holds."""
    rows, runs = [], chain_of(folder).folders
    for name in _CHECKPOINTS:
        for run, upto in runs:
            found = read_json(run / "checkpoints" / f"{name}-adapter" / "lit_mem.json")
            step = found.get("global_step") if isinstance(found, dict) else None
            if not isinstance(found, dict) or "epoch" not in found or (upto is not None and (step or 0) > upto):
                continue
            at = next((v for v in history.validations if v.step == (step or 0) - 1 and v.epoch > 0), None)
            at = at or next((v for v in reversed(history.validations) if v.epoch == found["epoch"]), None)
            metrics = at.metrics if at else {}
            where = Path("checkpoints", f"{name}-adapter")
            where = where if run == folder else Path(os.path.relpath(run, folder), where)
            rows.append(
                {"name": name, "folder": where.as_posix(), "metrics": metrics}
                | {"state": NAMES[judge_all(rules, metrics)[0]] if rules else "no limits"}
                | {"epoch": found["epoch"], "global_step": step}
            )
            break
    return rows
