"""Verdicts on claims about a sweep, by Student's t over seeds, corrected for multiple claims.

With 8 independent findings whose true differences are 0, each judged by its 95 % interval, at least one is decided in a
third of all sweeps (1 − 0.95⁸). So the intervals of m findings are taken at level 1 − 0.05 / m: together they contain
their true values in at least 95 % of sweeps, for any dependence between the findings, so that at most 5 % of sweeps
have a wrong verdict. The interval shown is the one that decides. Holm's procedure would decide somewhat more often, but
its steps have no intervals.

Source: Dunn 1961, "Multiple Comparisons Among Means" (Bonferroni's inequality for Student's intervals).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from lit_mem.functional.interval import student_interval
from lit_mem.functional.repeats import MOST, repeats_to_leave_zero

Verdict = Literal["holds", "does not hold", "undecided"]
WRONG: Final = 0.05
"""The maximum probability that a sweep has a wrong verdict."""
TEST: Final = "paired over seeds, two-sided t-test"
TEST_OF_ALL: Final = (
    "paired over seeds, t-tests of each difference: all of them above 0, or one of them below (Bonferroni)"
)


@dataclass(frozen=True)
class Claim:
    """A statement that is true if each of its differences is above 0 on average.

    Attributes:
        question: matrices, rank or perplexity.
        statement: the claim.
        differences: one or more, each with its values by seed, all of the same seeds; non-finite values are left out.
        note: the unit, and further remarks.
    """

    question: str
    statement: str
    differences: Sequence[Sequence[float]]
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One of the paper's findings, on this model and data.

    Attributes:
        question: matrices, rank or perplexity.
        statement: the claim.
        verdict: by the interval, which lies above 0, below 0, or contains 0.
        test: the statistical test.
        estimate: mean over seeds, above 0 if the statement is true; for several differences, the smallest mean.
        low: lower end of its interval.
        high: upper end of its interval.
        p_value: p-value of a mean of 0, times `n_findings` and at most 1: below 0.05 if the verdict is not undecided.
        n_seeds: number of seeds.
        n_findings: number of findings of the sweep, this one included.
        level: level of the interval, 1 − 0.05 / n_findings.
        seeds_to_decide: for an undecided finding, the smallest number of seeds that would decide it if means and
            deviations over seeds stay the same; None if it is decided, has no interval, or needs too many.
        more_than_seeds: the largest number of seeds tried, if even that does not decide it; else None.
        note: the unit, and further remarks.
    """

    question: str
    statement: str
    verdict: Verdict
    test: str
    estimate: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n_seeds: int
    n_findings: int
    level: float
    seeds_to_decide: int | None = None
    more_than_seeds: int | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def verdict_on(claim: Claim, n_findings: int = 1) -> Finding:
    """The verdict, wrong in at most 5 % / n_findings of sweeps.

    It holds if the interval of each difference lies above 0 (intersection-union: no correction for the number of
    differences is needed), and does not hold if one of them lies below 0 at a level divided by the number of
    differences.

    Args:
        claim: with at least one difference.
        n_findings: number of claims tested on the sweep, this one included; at least 1.

    Returns:
        `low` and `high` contain the smallest true difference in at least `level` of all cases. With fewer than two
        seeds, or a difference that is the same for every seed, both are None, and the finding is undecided.

    Source: Berger 1982, "Multiparameter Hypothesis Testing and Acceptance Sampling" (intersection-union test).

    >>> several = [[0.1, 0.11, 0.12], [0.1, -0.1, 0.12]]
    >>> [verdict_on(Claim("rank", "more", [values])).verdict for values in several]
    ['holds', 'undecided']
    >>> found = verdict_on(Claim("rank", "more", several[:1]), n_findings=20)
    >>> found.verdict, found.seeds_to_decide
    ('undecided', 4)
    """
    from scipy.special import stdtr

    rows = [[value for value in values if math.isfinite(value)] for values in claim.differences]
    level, many = 1 - WRONG / n_findings, len(rows)
    means = [float(np.mean(values)) if values else math.inf for values in rows]
    smallest = means.index(min(means))
    estimate, n_seeds = (None if math.isinf(means[smallest]) else means[smallest]), len(rows[smallest])

    def found(verdict: Verdict, **known: Any) -> Finding:
        what = {"low": None, "high": None, "p_value": None, "note": claim.note} | known
        test = TEST if many == 1 else TEST_OF_ALL
        return Finding(
            claim.question, claim.statement, verdict, test, estimate,
            n_seeds=n_seeds, n_findings=n_findings, level=level, **what,
        )  # fmt: skip

    missing = next((why for values in rows if (why := _no_interval(values))), None)
    if missing:
        return found("undecided", note=f"{claim.note}; {missing}")
    of_all = 1 - WRONG / n_findings / many
    low = min(student_interval(values, level)[1] for values in rows)
    high = min(student_interval(values, of_all)[2] for values in rows)
    freedom, statistics = _statistics(rows)
    above, below = float(stdtr(freedom, -statistics).max()), float(stdtr(freedom, statistics).min()) * many
    ends = {"low": low, "high": high, "p_value": min(1.0, 2 * min(above, below) * n_findings)}
    if low > 0 or high < 0:
        return found("holds" if low > 0 else "does not hold", **ends)
    seeds = _seeds_to_decide(rows, level, of_all)
    if seeds is None:
        return found("undecided", **ends, more_than_seeds=MOST)
    # Rounding could give the current number of seeds if the interval ends at 0.
    return found("undecided", **ends, seeds_to_decide=max(seeds, n_seeds + 1))


def _no_interval(values: Sequence[float]) -> str | None:
    """Why a difference has no interval; None if it has one."""
    if not values:
        return "not measured"
    if len(values) == 1:
        return "a single seed gives no spread"
    # Nothing was random, so the value for another seed is unknown.
    return "the same with every seed" if min(values) == max(values) else None


def _statistics(rows: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom of each difference, and its mean in standard errors."""
    n = np.array([len(values) for values in rows])
    errors = np.array([np.std(values, ddof=1) for values in rows]) / np.sqrt(n)
    with np.errstate(divide="ignore"):  # deviations so small that their squares underflow to 0
        return n - 1, np.array([np.mean(values) for values in rows]) / errors


def _seeds_to_decide(rows: Sequence[Sequence[float]], level: float, of_all: float) -> int | None:
    """The smallest number of seeds at which all differences are above 0, or one is below."""
    spread = [(float(np.mean(values)), float(np.std(values, ddof=1))) for values in rows]
    holds = [repeats_to_leave_zero(mean, sd, level) if mean > 0 else None for mean, sd in spread]
    fails = [repeats_to_leave_zero(mean, sd, of_all) for mean, sd in spread if mean < 0]
    ways = [n for n in fails if n is not None]
    if known := [n for n in holds if n is not None]:
        ways += [max(known)] if len(known) == len(holds) else []
    return min(ways, default=None)
