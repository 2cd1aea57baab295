"""Plan an AUROC's interval: its expected width for given numbers of texts, and how many texts are needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from lit_mem.errors import MetricError, check_range
from lit_mem.functional.interval import clopper_pearson, wilson_interval

MOST: Final = 1_000_000
"""Larger numbers of texts are not reported."""
_STEPS: Final = 2000
_MANY_TIMES: Final = 1000
_MOST_HELDOUT: Final = 10
"""Held-out texts per scored member, beyond which adding members is cheaper."""


class Scored(NamedTuple):
    """How many texts a pass scores, and how many there are.

    Attributes:
        members: scored.
        heldout: scored.
        of_members: in the training set; None if unknown.
        of_heldout: in the held-out set, likewise.
    """

    members: int
    heldout: int
    of_members: int | None = None
    of_heldout: int | None = None


class Needed(NamedTuple):
    """Numbers of texts that would settle on which side of a limit an AUROC is.

    Attributes:
        members: to score.
        heldout: to score.
    """

    members: int
    heldout: int


def auroc_variance(area: float, members: int, heldout: int) -> float:
    """Expected variance of an AUROC for given numbers of texts, before any is scored.

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
    """P(two members outscore one held-out text) and P(one member outscores two), each minus the squared area."""
    return area / (2 - area) - area**2, 2 * area * area / (1 + area) - area**2


def planned_interval(
    area: float, members: int, heldout: int, level: float = 0.95, widened: float = 1.0
) -> tuple[float, float]:
    """The expected interval of an AUROC, computed on the logit scale.

    Args:
        area: the AUROC, in [0, 1].
        members: scored, at least 1.
        heldout: scored, at least 1.
        level: confidence of the two-sided interval, in (0, 1).
        widened: factor by which the interval is known to be wider than the model's, on the logit scale.

    Returns:
        Both ends in [0, 1]: logit(area) ± z · sd / (area (1 − area)), the delta method, with one added observation per
        set whose variance is area (1 − area). At an area of 0 or 1, where the variance is 0, Wilson's interval of a
        share seen in min(members, heldout) trials.

    Raises:
        MetricError: as `auroc_variance`.
    """
    from scipy.stats import norm

    most = area * (1 - area)
    two_members, two_heldout = _pairs(area)
    # One added observation per set, at the maximum variance of a share: small samples miss the scores that matter near
    # 1.
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
    """The AUROC at which the interval excludes a limit: where a threshold with `lower_bound` triggers.

    Args:
        limit: on the AUROC, in (0, 1).
        members: scored, at least 1.
        heldout: scored, at least 1.
        above: whether values above the limit violate it (else: below).
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        The value nearest to the limit whose interval excludes it; None if not even an area of 1 (or 0) does.
    """
    end = 1.0 if above else 0.0

    def excluded(area: float) -> bool:
        low, high = planned_interval(area, members, heldout, level)
        return low > limit if above else high < limit

    # Far from the limit the interval grows again, so take the first of many steps.
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
    """How many texts would make the interval at the observed AUROC exclude a limit.

    Held-out texts are added first. The number of members is at least the number scored now, which without
    `data.members_size` is all of up to 2000, or at least 2000 of more. If more held-out texts than that are needed, as
    many members are scored, up to `scored.of_members` (no bound if None). If members are the bottleneck, the two
    numbers grow together.

    Args:
        area: the observed AUROC, in [0, 1].
        limit: on the AUROC.
        scored: how many texts were scored, at least 1 of each set.
        seen: the observed interval, which contains the limit; planned intervals are scaled to be as much wider or
            narrower than the model's as this one. None: no scaling.
        level: confidence of the two-sided interval, in (0, 1).

    Returns:
        The smallest numbers that settle it, each at least the current one. More members than `scored.of_members` mean
        that held-out texts alone cannot settle it. None if a million texts do not: the AUROC is at the limit, or very
        close to it.
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
    """The factor on the number of texts at which an interval excludes a limit, with width proportional to 1 / √texts.

    Args:
        value: the estimate.
        end: the end of its interval on the side of the limit.
        limit: between the two, not at the value.
    """
    ratio = (value - end) / (value - limit)
    return ratio * ratio  # infinite where a power would be an OverflowError


def times_as_many_of_rate(value: float, seen: tuple[float, float], limit: float, level: float = 0.95) -> float | None:
    """The factor on the number of units at which the Clopper-Pearson interval of a rate excludes a limit.

    Args:
        value: the rate, in [0, 1].
        seen: its observed interval, which contains the limit.
        limit: not the value.
        level: of the interval.

    Returns:
        The factor, at least 1; None if the interval is not a Clopper-Pearson interval for any number of units, or a
        factor of a thousand does not settle it.
    """
    if not (0 <= value <= 1 and 0 < limit < 1):
        return None
    side = 0 if limit < value else 1

    def end(n: float) -> float:
        return clopper_pearson(value, n, level)[side]

    def reached(target: float, start: float) -> float | None:
        """The n, in steps of 1e-9 of it, at which the end is as close to the value as the target."""
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
    """The smallest number from `start` to `MOST` for which it holds; it must be monotone."""
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
