"""Whether the attacks can be trusted: what the data and the untuned model show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lit_mem.report.history import History, Validation


def trust(checks: Mapping[str, Any] | None, config: Mapping[str, Any], history: History) -> dict[str, Any]:
    """Can the attacks be trusted? What the run measured before training, or an audit of the base model."""
    start, last = history.start, history.last
    repeats = None if last is None else last.get("memorization/members_duplicates")
    return {
        "checks_on": (config.get("data") or {}).get("check"),
        "checks": checks,
        "repeated_members": repeats,
        "before_training": [] if start is None else _readings(start, r"mia/.+_auroc", "before training"),
        "of_base": [] if last is None or not history.audit else _readings(last, r"mia/.+_auroc_base", "in the base"),
    }


def _all_tied(validation: Validation, auroc: str) -> bool:
    """Whether an AUROC is 0.5 because all scores are the same, and not by chance."""
    accuracy = validation.get(auroc.removesuffix("auroc") + "balanced_accuracy")
    return validation.get(auroc) == 0.5 and accuracy in (0.5, None)


def _readings(validation: Validation, pattern: str, where: str) -> list[dict[str, Any]]:
    """The AUROCs of a model that was not tuned, each with its reading."""
    rows = []
    for name in sorted(validation.metrics):
        if not re.fullmatch(pattern, name):
            continue
        low, high = validation.get(f"{name}_low"), validation.get(f"{name}_high")
        if low is None or high is None:
            reading = "no interval"
        elif where == "before training" and _all_tied(validation, name):
            reading = "0.5 by construction: nothing is tuned yet"
        elif low <= 0.5 <= high:
            reading = "as expected: guessing"
        elif low > 0.5:
            reading = f"above 0.5 {where}: members score higher by themselves, and the attack measures that too"
        else:
            reading = f"below 0.5 {where}: members score lower by themselves, which hides memorization"
        rows.append({"metric": name, "value": validation.get(name), "low": low, "high": high, "reading": reading})
    return rows
