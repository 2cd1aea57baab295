"""How wide an AUROC's interval will be with so many texts, and how many texts make it narrow enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from lit_mem.errors import MetricError, check_range
from lit_mem.functional.interval import clopper_pearson, wilson_interval

MOST: Final = 1_000_000
"""Numbers of texts above this are not worth naming."""
_STEPS: Final = 2000
_MANY_TIMES: Final = 1000
_MOST_HELDOUT: Final = 10
"""Held-out texts for each member that can be scored, beyond which more members are the cheaper way."""


class Scored(NamedTuple):
    """How many texts a pass scores, of how many.

    Attributes:
        members: scored.
        heldout: scored.
        of_members: in the training set; None where that is not known.
        of_heldout: in the held-out set, likewise.
    """

    members: int
    heldout: int
    of_members: int | None = None
    of_heldout: int | None = None


class Needed(NamedTuple):
    """Texts that would settle on which side of a limit an AUROC lies.

    Attributes:
        members: to score.
        heldout: to score.
    """

    members: int
    heldout: int


def auroc_variance(area: float, members: int, heldout: int) -> float:
    """Variance of an AUROC with so many texts, before any is scored.

    Args:
        area: the AUROC, in [0, 1].
        members: positives, at least 1.
        heldout: negatives, at least 1.

    Returns:
        The variance under Hanley and McNeil's exponential model of the scores; 0 at an area of 0 or 1.

    Raises:
        MetricError: the area is not in [0, 1], or a set is empty.

    Source: Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve".
    """
    check_range("the AUROC", area, at_least=0, at_most=1, kind=MetricError)
    check_range("the number of members", members, at_least=1, kind=MetricError)
    check_range("the number of held-out texts", heldout, at_least=1, kind=MetricError)
    two_members, two_heldout = _pairs(area)
    total = area * (1 - area) + (members - 1) * two_members + (heldout - 1) * two_heldout
    return max(0.0, total) / (members * heldout)


def _pairs(area: float) -> tuple[float, float]:
    """Chance that two members outscore one held-out text, and one member two of these, each less the area squared."""
    return area / (2 - area) - area**2, 2 * area * area / (1 + area) - area**2


def planned_interval(
    area: float, members: int, heldout: int, level: float = 0.95, widened: float = 1.0
) -> tuple[float, float]:
    """The interval to expect around an AUROC, on the logit scale.

    Args:
        area: the AUROC, in [0, 1].
        members: scored, at least 1.
        heldout: scored, at least 1.
        level: confidence of the two-sided interval, in (0, 1).
        widened: how much wider than the model's the interval is known to be, on the logit scale.

    Returns:
        Both ends in [0, 1]: logit(area) ± z · sd / (area (1 − area)), the delta method, with one observation more in
        each set whose variance is area (1 − area); at an area of 0 or 1, where
        the variance is 0, Wilson's interval of a share seen in min(members, heldout) trials.

    Raises:
        MetricError: as `auroc_variance`.
    """
    from scipy.stats import norm

    most = area * (1 - area)
    two_members, two_heldout = _pairs(area)
    # One more observation in each set, at the greatest variance of a share, as few scores miss what decides near 1.
    more = (most - two_heldout) / members**2 + (most - two_members) / heldout**2
    spread = math.sqrt(auroc_variance(area, members, heldout) + max(0.0, more))
    if spread == 0:
        return wilson_interval(area, min(members, heldout), level)
    half = widened * float(norm.ppf(0.5 + level / 2)) * spread / most
    middle = _logit(area)
    return _area(middle - half), _area(middle + half)


def _logit(area: float) -> float:
    return math.log(area / (1 - area))


def _area(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def stops_at(limit: float, members: int, heldout: int, above: bool = True, level: float = 0.95) -> float | None:
    """The AUROC at which the interval's safe end reaches a limit: where a threshold with `lower_bound` acts.

    Args:
        limit: on the AUROC, in (0, 1).
        members: scored, at least 1.
        heldout: scored, at least 1.
        above: the limit is passed by values above it (else: below).
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        The value nearest to the limit whose interval excludes it; None where not even an area of 1 (or 0) does.
    """
    end = 1.0 if above else 0.0

    def excluded(area: float) -> bool:
        low, high = planned_interval(area, members, heldout, level)
        return low > limit if above else high < limit

    # Far from the limit the interval grows again, so the first of many steps decides.
    areas = [limit + (end - limit) * i / _STEPS for i in range(_STEPS)] + [end]
    first = next((i for i, area in enumerate(areas) if i and excluded(area)), None)
    if first is None or first == _STEPS:
        return None if first is None else end
    inside, outside = areas[first - 1], areas[first]
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if excluded(middle) else (middle, outside)
    return outside


def needed_to_settle(
    area: float,
    limit: float,
    scored: Scored,
    seen: tuple[float, float] | None = None,
    level: float = 0.95,
) -> Needed | None:
    """How many texts would make the interval at the AUROC seen exclude a limit.

    Held-out texts are added first. Of the members at least those scored now stay, which are all of up to 2000 and at
    least 2000 of more where `data.members_size` is not set; with more held-out texts than these as many are scored, as
    far as there are members; where `scored.of_members` is None, that is no bound. Where the members are the bottleneck,
    as many of both as it takes.

    Args:
        area: the AUROC seen, in [0, 1].
        limit: on the AUROC.
        scored: how many texts were scored, at least 1 of each set.
        seen: the interval seen, in which the limit lies; the planned ones are as much wider or narrower than the
            model's as this one is. None: the model's.
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        The smallest numbers that settle it, each at least what it is now. More members than `scored.of_members` say
        that held-out texts alone cannot settle it. None where a million texts do not: the AUROC is the limit, or next
        to it.
    """
    members, heldout = scored.members, scored.heldout
    most = math.inf if scored.of_members is None else max(members, scored.of_members)
    widened = 1.0 if seen is None else _widened(area, limit, members, heldout, seen, level)

    def settled(m: int, n: int) -> bool:
        low, high = planned_interval(area, m, n, level, widened)
        return not low <= limit <= high

    def with_members(n: int) -> int:
        return max(members, int(min(n, most)))

    found = _smallest(lambda n: settled(with_members(n), n), heldout)
    if found is not None and found <= max(heldout, _MOST_HELDOUT * most):
        return Needed(with_members(found), found)
    found = _smallest(lambda n: settled(max(n, members), n), heldout)
    return None if found is None else Needed(max(found, members), found)


def times_as_many(value: float, end: float, limit: float) -> float:
    """How many times the texts would make an interval exclude a limit, its width falling as 1 / √texts.

    Args:
        value: the estimate.
        end: of its interval, on the side of the limit.
        limit: between the two, not at the value.
    """
    return ((value - end) / (value - limit)) ** 2


def times_as_many_of_rate(value: float, seen: tuple[float, float], limit: float, level: float = 0.95) -> float | None:
    """How many times the units would make Clopper and Pearson's interval of a rate exclude a limit.

    Args:
        value: the rate, in [0, 1].
        seen: its interval, in which the limit lies.
        limit: not the value.
        level: of the interval.

    Returns:
        The factor, at least 1; None where the interval is none of Clopper and Pearson's of any number of units, or a
        thousand times as many do not settle it.
    """
    if not (0 <= value <= 1 and 0 < limit < 1):
        return None
    side = 0 if limit < value else 1

    def end(n: float) -> float:
        return clopper_pearson(value, n, level)[side]

    def reached(target: float, start: float) -> float | None:
        """The n, in steps of 1e-9 of it, at which the end is as near to the value as the target."""
        few, many = start, start
        while abs(end(many) - value) > abs(target - value):
            few, many = many, 2 * many
            if many > MOST * _MANY_TIMES:
                return None
        while many - few > 1e-9 * many:
            middle = (few + many) / 2
            few, many = (middle, many) if abs(end(middle) - value) > abs(target - value) else (few, middle)
        return many

    now = reached(seen[side], 1e-3)
    if now is None or any(abs(a - b) > 1e-6 for a, b in zip(clopper_pearson(value, now, level), seen, strict=True)):
        return None
    needed = reached(limit, now)
    return None if needed is None or needed > _MANY_TIMES * now else max(1.0, needed / now)


def _widened(area: float, limit: float, members: int, heldout: int, seen: tuple[float, float], level: float) -> float:
    side = 0 if limit < area else 1
    ends = seen[side], planned_interval(area, members, heldout, level)[side]
    if not all(0 < each < 1 for each in (area, *ends)):
        return 1.0  # Wilson's interval at an area of 0 or 1, or none at all
    return (_logit(ends[0]) - _logit(area)) / (_logit(ends[1]) - _logit(area))


def _smallest(holds: Callable[[int], bool], start: int) -> int | None:
    """The smallest number from `start` on for which it holds, to `MOST`; it must go on holding above."""
    high = start
    while not holds(high):
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = start - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
