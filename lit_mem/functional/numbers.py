"""Format numbers for reports: readable on the page, and without NaN in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lit_mem.functional.interval import trials_of_none

NOT_MEASURED: Final = "not measured"


def shown(value: float | None) -> str:
    """A number with at most four significant digits; None and NaN are "not measured".

    >>> shown(0.85398888), shown(12), shown(None), shown(float("nan")), shown(0.0)
    ('0.854', '12', 'not measured', 'not measured', '0')
    """
    if value is None or math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    text = f"{value:#.3g}" if abs(value) < 1 else f"{value:#.4g}".removesuffix(".")
    return text.replace("-", "−")


def percent(share: float) -> str:
    """A share in percent: two significant digits, three from 10 % on.

    >>> percent(0.0122), percent(0.00037), percent(0.0), percent(0.125), percent(1.0)
    ('1.2 %', '0.037 %', '0 %', '12.5 %', '100 %')
    """
    value = 100 * share
    return f"{value:.3g} %" if value >= 10 else f"{value:.2g} %"


def rate_shown(value: float, low: float | None, high: float | None) -> str:
    """A rate with its 95 % interval; for a rate of 0, the upper bound and, if known, the number of units.

    >>> rate_shown(0.25, 0.2, 0.31), rate_shown(0.25, None, None), rate_shown(0.0, 0.0, 0.012220754)
    ('25 % [20 %, 31 %]', '25 %', '0: below 1.2 %')
    >>> from lit_mem.functional.interval import clopper_pearson
    >>> rate_shown(0.0, *clopper_pearson(0, 300))
    '0 of 300: below 1.2 %'
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return percent(value)
    if value or low:
        return f"{percent(value)} [{percent(low)}, {percent(high)}]"
    n = trials_of_none(high)
    return f"0{'' if n is None else f' of {n:,}'}: below {percent(high)}"


def ends_shown(name: str, value: float | None, low: float | None, high: float | None) -> str | None:
    """The text that replaces both ends for a rate of 0: "0 of 300: below 1.2 %"; None for any other rate."""
    if value != 0 or low != 0 or high is None or "auroc" in name:
        return None
    return rate_shown(0.0, low, high)


def as_json(value: Any) -> Any:
    """The value for JSON: None for NaN and infinities, strings for unsupported types."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [as_json(inner) for inner in value]
    return str(value)
