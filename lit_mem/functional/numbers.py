"""Numbers as a report writes them: in words on the page, and without NaN in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

NOT_MEASURED: Final = "not measured"


def shown(value: float | None) -> str:
    """A number for reading: four significant digits; what was not measured is never a 0.

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


def as_json(value: Any) -> Any:
    """The same with None for NaN and infinities, which JSON does not have, and text for what it does not know."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [as_json(inner) for inner in value]
    return str(value)
