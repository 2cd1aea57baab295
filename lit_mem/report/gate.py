"""Conditions under which a report ends with an exit code that stops a pipeline."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from lit_mem.callbacks.thresholds import Threshold
from lit_mem.errors import ConfigError
from lit_mem.report.history import Validation
from lit_mem.report.numbers import shown


def conditions(words: Iterable[str]) -> list[Threshold]:
    """Read `--fail-on`, which may be given several times, and hold a list each time.

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
                raise ConfigError(f"--fail-on {word!r} is no list") from None
        try:
            found += [Threshold.parse(str(text)) for text in (inner if isinstance(inner, list) else [inner])]
        except ConfigError as error:
            raise ConfigError(f"--fail-on: {error}") from None
    return found


def check_known(thresholds: Iterable[Threshold], names: set[str], what: str) -> None:
    """Refuse conditions on figures that were never logged, which could never fail.

    Raises:
        ConfigError: there is one.
    """
    for threshold in thresholds:
        if threshold.name not in names:
            close = difflib.get_close_matches(threshold.name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"--fail-on: {what} never logged {threshold.name}{hint}")


def failures(thresholds: Iterable[Threshold], last: Validation | None, who: str = "") -> list[dict[str, Any]]:
    """The conditions that hold for the last validation; what was not measured then fails too.

    Args:
        thresholds: such as `mia/reference_auroc > 0.6`.
        last: the last validation.
        who: the trial, in a sweep.
    """
    failed = list[dict[str, Any]]()
    for threshold in thresholds:
        value = math.nan if last is None else last.figures.get(threshold.name, math.nan)
        if math.isnan(value) or threshold.passed_by(value):
            at = "" if last is None else f" at epoch {last.epoch}"
            is_what = f"is {shown(value)}{at}"
            line = f"{who}{': ' if who else ''}{threshold.name} {is_what}; fails on {threshold}"
            failed.append(
                {
                    "trial": who or None,
                    "condition": str(threshold),
                    "figure": threshold.name,
                    "value": value,
                    "limit": threshold.limit,
                    "line": line,
                }
            )
    return failed
