"""Intervals of means and of ratios against SciPy's for counts, and against a plain loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from lit_mem.errors import MetricError
from lit_mem.functional.rate import mean_interval, rate_interval, ratio_interval

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=40)
UNITS = st.lists(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=30
)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def exact(share, n, level):
    """Clopper and Pearson's ends by the quantiles of SciPy's beta distribution."""
    tail, seen = (1 - level) / 2, share * n
    low = beta.ppf(tail, seen, n - seen + 1) if seen > 0 else 0.0
    return low, beta.ppf(1 - tail, seen + 1, n - seen) if seen < n else 1.0


def plain(parts, wholes):
    """The share, and how many trials it counts for: a loop over the units and two more, one full and one empty."""
    typical = sum(n**2 for n in wholes) / sum(wholes)
    units = sum(wholes) / typical
    pairs = [*zip(parts, wholes, strict=True), (typical, typical), (0.0, typical)]
    ratio = sum(part for part, _ in pairs) / sum(whole for _, whole in pairs)
    spread = sum((part - ratio * whole) ** 2 for part, whole in pairs) / sum(whole for _, whole in pairs) ** 2
    return sum(parts) / sum(wholes), ratio * (1 - ratio) / spread * units / (units + 2)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_of_zeros_and_ones_is_that_of_scipy(values, level):
    expected = binomtest(sum(values), len(values)).proportion_ci(level, method="exact")
    mean = mean_interval(torch.tensor(values, dtype=torch.float32), level)
    assert mean.value == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=40))
def test_other_values_count_for_as_many_trials_as_a_plain_loop_says(values):
    mean, n = plain(values, [1.0] * len(values))
    assert n == pytest.approx(len(values) * np.mean([*values, 0, 1]) * (1 - np.mean([*values, 0, 1])) /
                              np.var([*values, 0, 1]) * 1.0)  # fmt: skip
    found, interval = rate_interval(double(values))
    assert found == pytest.approx(mean, abs=1e-12)
    assert interval(0.9) == pytest.approx(exact(found, max(n, len(values)), 0.9), abs=1e-9)


@settings(deadline=None)
@given(SHARES)
def test_it_holds_the_mean_within_0_and_1_and_has_a_width(values):
    mean = mean_interval(double(values))
    assert 0 <= mean.low <= mean.value <= mean.high <= 1
    assert mean.low < mean.high
    assert mean.value == pytest.approx(math.fsum(values) / len(values), abs=1e-12)


@settings(deadline=None)
@given(SHARES)
def test_complements_mirror(values):
    mean, mirrored = (mean_interval(double(v)) for v in (values, [1 - v for v in values]))
    assert (1 - mean.value, 1 - mean.high, 1 - mean.low) == pytest.approx(tuple(mirrored), abs=1e-7)


@settings(deadline=None)
@given(SHARES, st.sampled_from([0.8, 0.95]))
def test_no_value_is_worth_less_than_one_of_0_or_1(values, level):
    mean = mean_interval(double(values), level)
    low, high = exact(mean.value, len(values), level)
    assert low - 1e-9 <= mean.low
    assert mean.high <= high + 1e-9


def test_nothing_of_twelve_is_not_certain():
    mean = mean_interval(torch.zeros(12))
    assert (mean.value, mean.low) == (0.0, 0.0)
    assert mean.high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert mean_interval(torch.ones(12)).low == pytest.approx(1 - mean.high)
    almost = mean_interval(double([1e-9] + [0.0] * 11))  # no jump beside it
    assert almost.high == pytest.approx(mean.high, abs=1e-6)


def test_a_tighter_level_is_narrower_and_more_values_are_too():
    few, many = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.5, 1.0] * 10)
    width = {k: mean_interval(v, level).high - mean_interval(v, level).low
             for k, v, level in (("few", few, 0.95), ("many", many, 0.95), ("bold", few, 0.5))}  # fmt: skip
    assert width["many"] < width["few"]
    assert width["bold"] < width["few"]


@settings(deadline=None)
@given(UNITS, st.sampled_from([0.8, 0.95]))
def test_a_ratio_counts_for_as_many_trials_as_a_plain_loop_says(units, level):
    parts, wholes = zip(*units, strict=True)
    share, n = plain(parts, wholes)
    found, interval = ratio_interval(double(parts), double(wholes))
    assert found == sum(parts) / sum(wholes)
    assert interval(level) == pytest.approx(exact(share, min(n, sum(wholes)), level), abs=1e-9)
    low, high = interval(level)
    assert 0 <= low <= found <= high <= 1
    assert low < high


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=40))
def test_of_units_of_one_piece_a_ratio_is_a_mean(values):
    share, interval = ratio_interval(double(values), torch.ones(len(values)))
    mean = mean_interval(double(values))
    assert (share, *interval(0.95)) == pytest.approx(tuple(mean), abs=1e-9)


@pytest.mark.parametrize("pieces", [1, 4, 50])
def test_pieces_that_go_together_count_as_one(pieces):
    whole = torch.full((30,), float(pieces))
    for units in (0, 7, 30):
        part = torch.where(torch.arange(30) < units, whole, 0.0)
        expected = binomtest(units, 30).proportion_ci(method="exact")
        assert ratio_interval(part, whole)[1](0.95) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_of_none_units_of_unequal_size_count_as_kishs_number():
    whole = double([1, 1, 1, 1, 1, 5])
    assert ratio_interval(torch.zeros(6), whole)[1](0.95)[1] == pytest.approx(1 - 0.025 ** (30 / 100))


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
