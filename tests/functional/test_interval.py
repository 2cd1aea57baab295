"""Intervals of shares against SciPy's and against the equations that their ends solve."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lit_mem.functional.interval import clopper_pearson, trials_of_none, wilson_interval

LEVELS = st.sampled_from([0.5, 0.9, 0.95, 0.999])


@settings(deadline=None)
@given(st.integers(1, 400), st.data(), LEVELS)
def test_intervals_of_counts_are_those_of_scipy(n, data, level):
    seen = data.draw(st.integers(0, n))
    for interval, method in ((wilson_interval, "wilson"), (clopper_pearson, "exact")):
        expected = binomtest(seen, n).proportion_ci(level, method=method)
        assert interval(seen / n, n, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**6), st.floats(0.01, 0.99))
def test_ends_solve_wilsons_equation(share, n, level):
    """Each end p is where the share lies just z deviations away: (share − p)² = z² p (1 − p) / n."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + level / 2)
    for p in wilson_interval(share, n, level):
        assert (share - p) ** 2 == pytest.approx(z * z * p * (1 - p) / n, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.1, 10**6), st.floats(1e-9, 1 - 1e-9))
def test_the_exact_interval_holds_the_share_has_a_width_and_mirrors(share, n, level):
    low, high = clopper_pearson(share, n, level)
    assert 0 <= low <= share <= high <= 1
    assert low < high
    assume(1e-6 < share < 1 - 1e-6)
    assert clopper_pearson(1 - share, n, level) == pytest.approx((1 - high, 1 - low), abs=1e-7)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(1, 10**5), st.floats(1, 5))
def test_more_trials_make_the_exact_interval_narrower(share, n, times):
    low, high = clopper_pearson(share, n)
    lower, higher = clopper_pearson(share, n * times)
    assert lower >= low - 1e-9
    assert higher <= high + 1e-9


@pytest.mark.parametrize("n", [1, 2, 12, 99, 300, 12_345, 1_000_000])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_upper_end_at_zero_says_of_how_many(n, level):
    high = clopper_pearson(0, n, level)[1]
    assert high == pytest.approx(binomtest(0, n).proportion_ci(level).high)
    assert trials_of_none(high, level) == n


@pytest.mark.parametrize("high", [0.0, 1.0, 0.03, clopper_pearson(0, 87.4)[1], wilson_interval(0, 50)[1]])
def test_another_upper_end_says_nothing_of_how_many(high):
    assert trials_of_none(high) is None
