"""The interval of a mean against SciPy's Wilson interval and simulated coverage."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lit_mem.errors import MetricError
from lit_mem.functional.interval import mean_interval, wilson_interval


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_of_zeros_and_ones_is_that_of_scipy(values, level):
    expected = binomtest(sum(values), len(values)).proportion_ci(level, method="wilson")
    mean = mean_interval(torch.tensor(values, dtype=torch.float32), level)
    assert mean.value == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_it_holds_the_mean_within_0_and_1_and_has_a_width(values):
    mean = mean_interval(torch.tensor(values, dtype=torch.float64))
    assert 0 <= mean.low <= mean.value <= mean.high <= 1
    assert mean.low < mean.high
    assert mean.value == pytest.approx(math.fsum(values) / len(values), abs=1e-12)


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**6), st.floats(0.01, 0.99))
def test_ends_solve_wilsons_equation(share, n, level):
    """Each end p is where the share lies just z deviations away: (share − p)² = z² p (1 − p) / n."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + level / 2)
    for p in wilson_interval(share, n, level):
        assert (share - p) ** 2 == pytest.approx(z * z * p * (1 - p) / n, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_complements_mirror(values):
    mean, mirrored = (mean_interval(torch.tensor(v, dtype=torch.float64)) for v in (values, [1 - v for v in values]))
    assert (1 - mean.value, 1 - mean.high, 1 - mean.low) == pytest.approx(tuple(mirrored), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 30, 100])
@pytest.mark.parametrize(("a", "b"), [(0.2, 0.3), (0.5, 2.0), (2.0, 1.0), (5.0, 5.0)])
def test_interval_of_shares_between_covers_the_true_mean(n, a, b):
    torch.manual_seed(0)
    draws = torch.distributions.Beta(torch.tensor(a).double(), torch.tensor(b).double()).sample((600, n))
    covered = sum(mean.low <= a / (a + b) <= mean.high for mean in map(mean_interval, draws)) / len(draws)
    assert covered >= 0.94


def test_nothing_of_twelve_is_not_certain():
    mean = mean_interval(torch.zeros(12))
    assert (mean.value, mean.low) == (0.0, 0.0)
    assert mean.high == pytest.approx(binomtest(0, 12).proportion_ci(method="wilson").high)
    assert mean_interval(torch.ones(12)).low == pytest.approx(1 - mean.high)


def test_a_tighter_level_is_narrower_and_more_values_are_too():
    few, many = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.5, 1.0] * 10)
    width = {k: mean_interval(v, level).high - mean_interval(v, level).low
             for k, v, level in (("few", few, 0.95), ("many", many, 0.95), ("bold", few, 0.5))}  # fmt: skip
    assert width["many"] < width["few"]
    assert width["bold"] < width["few"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"at least one value, got \(0,\)"),
        ([[0.5]], r"got \(1, 1\)"),
        ([0.5, math.nan], r"1 of 2 values are not in \[0, 1\]: nan"),
        ([1.5, -1.0, 0.0], r"2 of 3 values are not in \[0, 1\]: 1.5"),
        ([math.inf], "1 of 1 values"),
    ],
)
def test_what_cannot_be_computed_is_an_error(values, message):
    with pytest.raises(MetricError, match=message):
        mean_interval(torch.tensor(values))
