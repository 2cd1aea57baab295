"""Intervals as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lit_mem.functional.numbers import shown


def interval(low: float | None, high: float | None) -> str:
    """Both ends, for a cell; empty without an interval.

    >>> interval(0.25, 1.0), interval(0.25, None), interval(float("nan"), 1.0)
    ('0.250 to 1', '', '')
    """
    return _joined(low, high, "{} to {}")


def bracketed(low: float | None, high: float | None) -> str:
    """Both ends, to follow a number in a sentence; empty without an interval.

    >>> bracketed(0.25, 1.0), bracketed(0.25, None)
    (' [0.250, 1]', '')
    """
    return _joined(low, high, " [{}, {}]")


def ends_of(name: str, metrics: Mapping[str, float]) -> tuple[float | None, float | None]:
    """The logged ends of a metric's interval; None for one that was not logged."""
    return metrics.get(f"{name}_low"), metrics.get(f"{name}_high")


def _joined(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return form.format(shown(low), shown(high))
