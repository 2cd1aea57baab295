"""Calibration: noise and number of steps for a budget of epsilon, by inverting the accountant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lit_mem.errors import ConfigError
from lit_mem.privacy.accountant import MOST_NOISE, Kind, Steps, epsilon


def noise_for(
    target: float, delta: float, sample_rate: float, steps: int, history: Sequence[Steps] = (), kind: Kind = "prv"
) -> float:
    """The smallest noise multiplier with which the steps stay within an epsilon, to within 1 % of it.

    Args:
        target: maximum epsilon.
        delta: δ.
        sample_rate: q of the planned steps.
        steps: number of planned steps.
        history: steps already taken.
        kind: the accountant.

    Raises:
        ConfigError: no noise multiplier is enough.
    """

    def least(by: Kind, start: float) -> float | None:
        def cost(noise: float) -> float:
            return epsilon([*history, Steps(noise, sample_rate, steps)], delta, by)

        low, high = 0.8 * start, start
        while cost(high) > target:
            low, high = high, 2 * high
            if high > MOST_NOISE:
                return None
        while cost(low) <= target:
            low, high = 0.8 * low, low
        return _between(cost, target, bad=low, good=high, close=lambda bad, good: good - bad <= 0.002 * good)

    quick = least("rdp", 1.0)  # the looser accountant is faster, and gives a starting point
    found = quick if kind == "rdp" else least(kind, quick or 1.0)
    if found is None:
        raise ConfigError(
            f"no noise keeps epsilon at {target:g} with delta {delta:g} and {steps} steps, after an epsilon of "
            f"{epsilon(history, delta, kind):.3g} already spent; expected a higher target_epsilon"
            + (", or accountant prv" if kind == "rdp" else "")
        )
    return found


def steps_within(
    target: float, delta: float, noise_multiplier: float, sample_rate: float, most: int,
    history: Sequence[Steps] = (), kind: Kind = "prv",
) -> int:  # fmt: skip
    """Number of further steps that stay within an epsilon; at most `most`."""

    def cost(number: float, by: Kind = kind) -> float:
        return epsilon([*history, Steps(noise_multiplier, sample_rate, int(number))], delta, by)

    # For far too many steps the tight accountant would be slow.
    if cost(most, "rdp") <= 3 * target and cost(most) <= target:
        return most
    least, bad = 0, most + 1
    while bad - least > 1:
        middle = (least + bad) // 2
        least, bad = (middle, bad) if cost(middle, "rdp") <= target else (least, middle)
    if kind == "rdp":
        return least
    good, bad = (least if cost(least) <= target else 0), min(most, least + least // 4 + 1)
    while cost(bad) <= target:
        if bad == most:
            return most
        good, bad = bad, min(most, bad + bad // 4 + 1)
    return int(_between(cost, target, bad=bad, good=good, close=lambda bad, good: bad - good <= 1, whole=True))


def _between(
    cost: Callable[[float], float],
    target: float,
    bad: float,
    good: float,
    close: Callable[[float, float], bool],
    whole: bool = False,
) -> float:
    """The point at which the cost reaches the target, from below, within `close`.

    By secants on log-log axes, since costs are nearly powers; every third step by bisection.

    Args:
        cost: increases from `good` to `bad`, which may be smaller.
        target: between the costs of both.
        bad: a point above the target.
        good: a point at or below the target.
        close: whether the two points are close enough.
        whole: only use integers.
    """
    rounds = 0
    while not close(bad, good):
        rounds += 1
        part, (low, high) = 0.5, (cost(good), cost(bad))
        if rounds % 3 and 0 < low < target and math.isfinite(high) and good > 0:
            part = math.log(target / low) / math.log(high / low)
            part = min(max(part, 0.02), 0.98)
        at = good ** (1 - part) * bad**part if good > 0 else (good + bad) / 2
        if whole:
            at = min(max(math.floor(at), min(good, bad) + 1), max(good, bad) - 1)
        good, bad = (at, bad) if cost(at) <= target else (good, at)
    return good
