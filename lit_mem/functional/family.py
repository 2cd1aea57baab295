"""The strongest of several attacks on the same texts, corrected for selection."""

from __future__ import annotations

from collections.abc import Mapping

from lit_mem.functional.interval import Interval


def strongest(values: Mapping[str, float], intervals: Mapping[str, Interval]) -> tuple[str, float, Interval]:
    """The strongest attack, with an interval that is valid for the highest of several true values.

    The low end is the highest of the low ends, each at level 1 − (1 − level) / m for m attacks (Bonferroni): it is too
    high only if some attack's own interval misses. The high end is the highest of the high ends at the level itself:
    whichever attack is truly the strongest, its own high end is below the true value no more often than stated.

    Args:
        values: the estimate of each attack; at least one.
        intervals: the interval of each attack, as a function of the level.

    Returns:
        Name and value of the attack with the highest low end at 95 % (ties: the highest value, then the first), and the
        interval. The value is not the maximum of all, which would be biased upwards by selection.
    """
    m = len(values)

    def low_ends(level: float) -> dict[str, float]:
        return {name: intervals[name](1 - (1 - level) / m)[0] for name in values}

    at_95 = low_ends(0.95)
    name = max(values, key=lambda one: (at_95[one], values[one]))
    value = values[name]

    def interval(level: float) -> tuple[float, float]:
        low = max(low_ends(level).values())
        high = max(intervals[one](level)[1] for one in values)
        return min(low, value), max(high, value)

    return name, value, interval
