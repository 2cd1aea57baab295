"""The strongest of several attacks on the same texts, corrected for choosing it after looking."""

from __future__ import annotations

from collections.abc import Mapping

from lit_mem.functional.interval import Interval


def strongest(values: Mapping[str, float], intervals: Mapping[str, Interval]) -> tuple[str, float, Interval]:
    """The highest of several true values, by an interval that holds for the highest.

    The low end is the highest of the low ends, each at a level of 1 − (1 − level) / m for m attacks (Bonferroni): were
    one too high, its attack's own interval would miss. The high end is the highest of the high ends at the level
    itself: whichever attack truly is the strongest, its own high end is below the truth no more often than stated.

    Args:
        values: the estimate of each attack; at least one.
        intervals: of each, at any level.

    Returns:
        Name and value of the attack with the highest low end at 95 % (of equal ones the highest value, then the first),
        and the interval. The value is not the highest of all: that would be high by choice.
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
