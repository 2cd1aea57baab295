"""Verdicts compared with SciPy's tests, and seeds_to_decide compared with a search and simulated seeds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lit_mem.sweep.verdict import Claim, verdict_on


def verdict(values, n_findings=1, note=""):
    return verdict_on(Claim("rank", "", [values], note), n_findings)


def of_all(rows, n_findings=1, note=""):
    return verdict_on(Claim("matrices", "", rows, note), n_findings)


shares = st.floats(-1, 1).map(lambda x: round(x, 3))
seeds = st.lists(shares, min_size=2, max_size=6)


@settings(deadline=None)  # the first call imports scipy
@given(seeds, st.integers(1, 20))
def test_the_interval_and_p_value_are_those_of_scipy_at_the_level_of_all(values, n_findings):
    found = verdict(values, n_findings)
    if len(set(values)) == 1:
        assert found.verdict == "undecided"
        assert found.note.endswith("the same with every seed")
        return
    expected = stats.ttest_1samp(values, 0.0)
    low, high = expected.confidence_interval(1 - 0.05 / n_findings)
    p = min(1.0, expected.pvalue * n_findings)
    assert (found.low, found.high, found.p_value) == pytest.approx((low, high, p), abs=1e-9)
    assert (found.level, found.n_findings) == (1 - 0.05 / n_findings, n_findings)
    assert found.verdict == ("holds" if found.low > 0 else "does not hold" if found.high < 0 else "undecided")
    assert (found.verdict == "undecided") == (p >= 0.05) or math.isclose(p, 0.05)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[shares] * 4), min_size=3, max_size=5), st.integers(1, 5), st.integers(1, 5))
def test_more_findings_only_take_verdicts_away(by_seed, fewer, more):
    rows = [list(values) for values in zip(*by_seed, strict=True)]
    if any(len(set(values)) == 1 for values in rows):
        return
    few, many = of_all(rows, fewer), of_all(rows, fewer + more)
    assert many.low <= few.low
    assert few.high <= many.high
    assert many.verdict in (few.verdict, "undecided")
    assert (many.verdict == "undecided") == (many.p_value >= 0.05) or math.isclose(many.p_value, 0.05)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([0.5], 1), ([0.5, float("nan")], 1)])
def test_too_few_seeds_decide_nothing(values, n):
    found = verdict(values, note="unit")
    assert (found.verdict, found.n_seeds, found.low) == ("undecided", n, None)
    assert found.note in ("unit; a single seed gives no spread", "unit; not measured")
    assert (found.seeds_to_decide, found.more_than_seeds) == (None, None)


def test_all_of_several_differences_by_hand():
    rows = [[0.3, 0.34, 0.32], [0.2, 0.19, 0.24], [0.1, 0.14, 0.18]]
    found = of_all(rows)
    each = [stats.ttest_1samp(values, 0.0) for values in rows]
    low = min(one.confidence_interval(0.95).low for one in each)
    high = min(one.confidence_interval(1 - 0.05 / 3).high for one in each)
    p = max(one.pvalue for one in each)  # two-sided, and all lie above 0
    assert (found.estimate, found.low, found.high, found.p_value) == pytest.approx((0.14, low, high, p), abs=1e-9)
    assert (found.verdict, found.n_seeds) == ("holds", 3)
    fallen = of_all([*rows[:2], [-0.3, -0.31, -0.29]])
    assert (fallen.verdict, fallen.estimate) == ("does not hold", pytest.approx(-0.3))
    assert fallen.p_value == pytest.approx(min(1, 3 * stats.ttest_1samp([-0.3, -0.31, -0.29], 0.0).pvalue))
    assert of_all([*rows[:2], [0.1, -0.1, 0.2]]).verdict == "undecided"
    # Of four findings: each interval at 98.75 %, and p four times as high.
    found = of_all(rows, 4)
    low = min(one.confidence_interval(0.9875).low for one in each)
    high = min(one.confidence_interval(1 - 0.0125 / 3).high for one in each)
    assert (found.low, found.high, found.p_value) == pytest.approx((low, high, min(1, 4 * p)), abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "note"), [([[0.1], [0.2]], "a single seed gives no spread"), ([[0.1, 0.2], [0.3, 0.3]], "the same with")]
)
def test_a_difference_without_spread_decides_nothing_of_all(rows, note):
    found = of_all(rows, note="unit")
    assert (found.verdict, found.low, found.p_value, found.seeds_to_decide) == ("undecided", None, None, None)
    assert note in found.note


# -- how many seeds would decide it -------------------------------------------------------------------------


def decided_with(rows, n, n_findings):
    """By SciPy's intervals for the same means and deviations, from n seeds."""
    lows, highs = [], []
    for values in rows:
        scale = stats.tstd(values) / math.sqrt(n)
        lows.append(stats.t.interval(1 - 0.05 / n_findings, n - 1, np.mean(values), scale)[0])
        highs.append(stats.t.interval(1 - 0.05 / n_findings / len(rows), n - 1, np.mean(values), scale)[1])
    return min(lows) > 0 or min(highs) < 0


@pytest.mark.parametrize("n_findings", [1, 8])
@pytest.mark.parametrize(
    "rows",
    [
        [[0.2, 0.1, -0.1]],
        [[-0.2, -0.1, 0.1, 0.05]],
        [[0.3, 0.25, 0.05], [0.1, 0.2, -0.05]],
        [[0.3, 0.25, 0.05], [-0.1, -0.2, 0.15]],
        [[-0.3, -0.25, 0.1], [-0.1, -0.2, 0.15]],
    ],
)
def test_the_seeds_that_would_decide_it_are_the_first_that_do(rows, n_findings):
    found = of_all(rows, n_findings)
    wanted = next(n for n in range(3, 500) if decided_with(rows, n, n_findings))
    assert (found.verdict, found.seeds_to_decide, found.more_than_seeds) == ("undecided", wanted, None)
    assert wanted > found.n_seeds


def test_what_no_number_of_seeds_decides_has_a_bound_instead():
    for rows in ([[0.1, -0.1, 0.001]], [[0.3, 0.31, 0.4], [0.1, -0.1, 0.0]]):
        found = of_all(rows)
        assert (found.verdict, found.seeds_to_decide, found.more_than_seeds) == ("undecided", None, 1000)


def test_what_is_decided_needs_no_more_seeds():
    found = verdict([0.1, 0.11, 0.12])
    assert (found.verdict, found.seeds_to_decide, found.more_than_seeds) == ("holds", None, None)


@pytest.mark.slow
@pytest.mark.parametrize("n_findings", [1, 8])
def test_with_that_many_new_seeds_of_the_same_mean_about_half_are_decided(n_findings):
    values = [0.2, 0.1, -0.1]
    wanted = verdict(values, n_findings).seeds_to_decide
    rng, draws = np.random.default_rng(0), 1000
    for seeds_each, least, most in ((wanted, 0.4, 0.6), (2 * wanted, 0.8, 1.0), (3, 0.0, 0.3)):
        new = rng.normal(np.mean(values), stats.tstd(values), (draws, seeds_each))
        low, high = stats.ttest_1samp(new, 0.0, axis=1).confidence_interval(1 - 0.05 / n_findings)
        share = np.mean((low > 0) | (high < 0))
        print(f"{n_findings} findings, {seeds_each} seeds: {share:.1%} decided")  # noqa: T201  (shown by -rP)
        assert least <= share <= most
        some = [verdict(list(one), n_findings).verdict != "undecided" for one in new[:50]]
        assert some == list((low > 0)[:50] | (high < 0)[:50])
