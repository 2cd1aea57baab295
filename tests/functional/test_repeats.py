"""The number of repeats against a search with scipy's intervals."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lit_mem.errors import MetricError
from lit_mem.functional.repeats import MOST, repeats_to_leave_zero


def leaves(mean, deviation, n, level):
    low, high = stats.t.interval(level, n - 1, mean, deviation / math.sqrt(n))
    return low > 0 or high < 0


@settings(deadline=None, max_examples=40)  # the first call imports scipy
@given(st.floats(-2, 2), st.floats(0.01, 2), st.sampled_from([0.9, 0.95, 1 - 0.05 / 8]))
def test_it_is_the_first_of_all_numbers_that_leaves_zero(mean, deviation, level):
    found = repeats_to_leave_zero(mean, deviation, level, most=60)
    assert found == next((n for n in range(2, 61) if leaves(mean, deviation, n, level)), None)


def test_large_numbers_are_the_square_of_the_normal_quantile():
    quantile = stats.norm.ppf(0.975)
    found = repeats_to_leave_zero(0.1, 1.0)
    assert (quantile / 0.1) ** 2 < found < (quantile / 0.1) ** 2 + 3


def test_what_never_leaves_zero_has_no_number():
    assert repeats_to_leave_zero(0.0, 1.0) is None
    assert repeats_to_leave_zero(0.001, 1.0) is None
    assert repeats_to_leave_zero(1.0, 1.0, most=6) is None
    assert repeats_to_leave_zero(-1.0, 0.0) == 2
    assert repeats_to_leave_zero(stats.t.ppf(0.975, MOST - 1) / math.sqrt(MOST) * 1.000001, 1.0) == MOST


@pytest.mark.parametrize(("deviation", "most"), [(-1.0, 10), (math.nan, 10), (1.0, 1)])
def test_what_has_no_interval_is_rejected(deviation, most):
    with pytest.raises(MetricError):
        repeats_to_leave_zero(1.0, deviation, most=most)
