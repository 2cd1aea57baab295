"""Coverage and width of the intervals of rates, for the tables of docs/reference/metrics/intervals.md.

python -m tools.interval_coverage
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm, t

from lit_mem.functional.interval import Interval, clopper_pearson, wilson_interval
from lit_mem.functional.rate import rate_interval, ratio_interval
from lit_mem.functional.roc import tpr_interval

Values = NDArray[np.float64]
TRIALS, BETS, LEVEL = 2000, 200, 0.95


def mixed(*parts: tuple[float, Callable[[int], Values]]) -> Callable[[tuple[int, int]], Values]:
    """A sampler of a mixture, with each part weighted by its share."""

    def draw(size: tuple[int, int]) -> Values:
        which = RNG.choice(len(parts), size, p=[share for share, _ in parts])
        found = np.zeros(size)
        for i, (_, of) in enumerate(parts):
            found[which == i] = of(int((which == i).sum()))
        return found

    return draw


RNG = np.random.default_rng(0)
TRUTHS: dict[str, tuple[Callable[[tuple[int, int]], Values], float]] = {
    "98 % are 0, the others even": (mixed((0.98, np.zeros), (0.02, RNG.random)), 0.01),
    "85 % are 0, the others even": (mixed((0.85, np.zeros), (0.15, RNG.random)), 0.075),
    "even in [0, 1]": (mixed((1.0, RNG.random)), 0.5),
    "Beta(2, 8)": (mixed((1.0, lambda n: RNG.beta(2, 8, n))), 0.2),
    "Beta(0.1, 0.3)": (mixed((1.0, lambda n: RNG.beta(0.1, 0.3, n))), 0.25),
    "98 % Beta(2, 18), 2 % are 1": (mixed((0.98, lambda n: RNG.beta(2, 18, n)), (0.02, np.ones)), 0.118),
    "90 % below 0.2, 10 % are 1": (mixed((0.9, lambda n: RNG.random(n) / 5), (0.1, np.ones)), 0.19),
}


def student(row: Values, added: int = 0) -> tuple[float, float]:
    """Student's t with this many values of 0 and of 1 added."""
    row = np.concatenate([row, np.zeros(added), np.ones(added)])
    half = float(_quantile(len(row) - 1) * row.std(ddof=1) / np.sqrt(len(row)))
    return max(0.0, row.mean() - half), min(1.0, row.mean() + half)


@cache
def _quantile(freedom: int) -> float:
    return float(t.ppf(0.5 + LEVEL / 2, freedom))


def bets(row: Values, grid: int = 200) -> tuple[float, float]:
    """The hedged betting interval of Waudby-Smith & Ramdas 2024, section 4."""
    n, number, alpha = len(row), np.arange(1, len(row) + 1), 1 - LEVEL
    mean = (0.5 + row.cumsum()) / (number + 1)
    spread = (0.25 + ((row - mean) ** 2).cumsum()) / (number + 1)
    bet = np.sqrt(2 * np.log(2 / alpha) / (n * np.concatenate([[0.25], spread[:-1]])))
    tried = ((np.arange(grid) + 0.5) / grid)[:, None]
    up = np.log1p(np.minimum(bet, 0.5 / tried) * (row - tried)).cumsum(axis=1).max(axis=1)
    down = np.log1p(-np.minimum(bet, 0.5 / (1 - tried)) * (row - tried)).cumsum(axis=1).max(axis=1)
    kept = tried[:, 0][np.maximum(up, down) - np.log(2) < np.log(1 / alpha)]
    return float(kept.min()) - 0.5 / grid, float(kept.max()) + 0.5 / grid


def say(line: str) -> None:
    """Write a line and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def cell(ends: list[tuple[float, float]], truth: float) -> str:
    """Coverage in percent and mean width."""
    held = np.mean([low <= truth <= high for low, high in ends])
    return f"{100 * held:.1f}, {np.mean([high - low for low, high in ends]):.3f}"


def at_95(intervals: list[tuple[float, Interval]]) -> list[tuple[float, float]]:
    """The ends at 95 %."""
    return [interval(LEVEL) for _, interval in intervals]


def means() -> None:
    """Means of values in [0, 1]."""
    say("| values | n | Student's t | t after a 0 and a 1 | Wilson | bets | logged |\n|" + " --- |" * 7)
    for name, (draw, truth) in TRUTHS.items():
        for n in (30, 100, 300):
            rows = draw((TRIALS, n))
            every = [
                [student(row) for row in rows],
                [student(row, 1) for row in rows],
                [wilson_interval(row.mean(), n) for row in rows],
                [bets(row) for row in rows[:BETS]],
                at_95([rate_interval(torch.from_numpy(row)) for row in rows]),
            ]
            say(f"| {name} | {n} | {' | '.join(cell(ends, truth) for ends in every)} |")


def pieces() -> None:
    """Shares of pieces grouped in texts, one to about six each."""
    say("\n| pieces of a text | true share | texts | Clopper-Pearson of all pieces | logged |\n|" + " --- |" * 5)
    for alike in ("independent", "correlated by 0.3", "all or none"):
        for truth in (0.01, 0.05, 0.3):
            for n in (30, 300):
                whole = 1 + RNG.poisson(2, (TRIALS, n))
                chance: Values = RNG.beta(truth * 7 / 3, (1 - truth) * 7 / 3, whole.shape)
                if alike == "independent":
                    chance = np.full(whole.shape, truth, np.float64)
                elif alike == "all or none":
                    chance = (RNG.random(whole.shape) < truth).astype(np.float64)
                part = RNG.binomial(whole, chance)
                every = zip(part.sum(axis=1), whole.sum(axis=1), strict=True)
                plain = [clopper_pearson(counted / of, of) for counted, of in every]
                pairs = zip(torch.from_numpy(part), torch.from_numpy(whole), strict=True)
                ours = at_95([ratio_interval(*pair) for pair in pairs])
                say(f"| {alike} | {truth} | {n} | {cell(plain, truth)} | {cell(ours, truth)} |")


def rates_at_fpr() -> None:
    """TPR at an FPR, normal scores."""
    say("\n| members | non-members | FPR | true TPR | logged | lower end is 0 |\n|" + " --- |" * 6)
    for members, n, fpr in ((60, 60, 0.1), (300, 300, 0.1), (300, 300, 0.01), (300, 1000, 0.01), (1000, 1000, 0.01)):
        for shift in (0.0, 1.0, 2.5):
            member, truth = torch.arange(members + n) < members, float(norm.sf(norm.isf(fpr) - shift))
            draws = torch.from_numpy(RNG.standard_normal((TRIALS // 4, members + n))) + shift * member
            ends = [tpr_interval(scores, member, fpr)(LEVEL) for scores in draws]
            none = np.mean([low == 0 for low, _ in ends])
            row = f"| {members} | {n} | {fpr} | {truth:.3f} | {cell(ends, truth)} | {100 * none:.0f} % |"
            say(row)


if __name__ == "__main__":
    means()
    pieces()
    rates_at_fpr()
