"""Conditions that make the exit code of a report stop a pipeline."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lit_mem.audit.judging import judge, settled_by
from lit_mem.audit.thresholds import Threshold, parsed
from lit_mem.errors import ConfigError
from lit_mem.functional.numbers import shown
from lit_mem.functional.planning import Scored
from lit_mem.report.history import Validation
from lit_mem.report.intervals import bracketed


def conditions(words: Iterable[str]) -> list[Threshold]:
    """Parse `--fail-on`, which may be given several times, each time with one condition or a list.

    Raises:
        ConfigError: one is not of the form "name > number".
    """
    import yaml

    found = list[Threshold]()
    for word in words:
        inner: Any = word
        if word.lstrip().startswith("["):
            try:
                inner = yaml.safe_load(word)
            except yaml.YAMLError:
                raise ConfigError(
                    f"--fail-on is {word!r}; expected a condition, or a list of conditions in YAML"
                ) from None
        try:
            found += parsed(str(text) for text in (inner if isinstance(inner, list) else [inner]))
        except ConfigError as error:
            raise ConfigError(f"--fail-on: {error}") from None
    return found


def check_known(thresholds: Iterable[Threshold], names: set[str], what: str) -> None:
    """Reject conditions on metrics that were never logged: they could never fail.

    Raises:
        ConfigError: a metric was never logged.
    """
    for threshold in thresholds:
        if threshold.name not in names:
            close = difflib.get_close_matches(threshold.name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"--fail-on: {what} never logged {threshold.name}{hint}")


def gate(thresholds: Sequence[Threshold], judged: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The part of a report on `--fail-on`.

    Args:
        thresholds: the conditions.
        judged: what `not_passed` found, of all that was judged.
    """
    rows = list(judged)
    return {
        "conditions": [str(threshold) for threshold in thresholds],
        "failed": [row["row"] for row in rows if row["state"] in ("over", "not measured")],
        "undecided": [row["row"] for row in rows if row["state"] == "undecided"],
    }


def not_passed(
    thresholds: Iterable[Threshold],
    last: Validation | None,
    who: str = "",
    scored: Scored | None = None,
    audit: bool = False,
) -> list[dict[str, Any]]:
    """The conditions that do not pass at the last validation, each with its state: over, not measured or undecided.

    Args:
        thresholds: such as `mia/reference_auroc > 0.6`.
        last: the last validation.
        who: the trial, in a sweep.
        scored: how many texts were scored, if that is known.
        audit: nothing was trained, so no epoch is named.
    """
    found = list[dict[str, Any]]()
    for threshold in thresholds:
        judged = judge(threshold, {} if last is None else last.metrics)
        if judged.state == "within":
            continue
        at = "" if last is None or audit else f" at epoch {last.epoch}"
        ends = bracketed(judged.low, judged.high)
        line = f"{who}{': ' if who else ''}{threshold.name} is {shown(judged.value)}{ends}{at}; "
        if judged.state == "undecided":
            line += f"{threshold} is undecided, as the limit lies within the 95 % interval: "
            line += settled_by(judged, scored)
        else:
            line += f"fails on {threshold}"
        row = {
            "trial": who or None,
            "condition": str(threshold),
            "metric": threshold.name,
            "value": judged.value,
            "low": judged.low,
            "high": judged.high,
            "limit": threshold.limit,
            "line": line,
        }
        found.append({"state": judged.state, "row": row})
    return found
