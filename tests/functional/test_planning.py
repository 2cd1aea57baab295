import math

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import norm

from lit_mem.errors import MetricError
from lit_mem.functional.auroc import auroc
from lit_mem.functional.interval import wilson_interval
from lit_mem.functional.planning import (
    Needed,
    Scored,
    auroc_variance,
    needed_to_settle,
    planned_interval,
    stops_at,
    times_as_many,
)

SIZES = [(0.5, 40, 40), (0.75, 25, 25), (0.75, 100, 300), (0.9, 95, 25), (0.3, 60, 60)]


def areas(area, members, heldout, draws, seed=0):
    """AUROCs of exponential scores, Hanley and McNeil's model, by counting pairs."""
    rng = np.random.default_rng(seed)
    x = rng.exponential(1 / (1 - area), (draws, members))
    y = rng.exponential(1 / area, (draws, heldout))
    return (x[:, :, None] > y[:, None, :]).mean(axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("area", "members", "heldout"), SIZES)
def test_the_variance_is_that_of_simulated_scores(area, members, heldout):
    seen = areas(area, members, heldout, 3000)
    assert seen.mean() == pytest.approx(area, abs=0.004)
    assert seen.std() == pytest.approx(math.sqrt(auroc_variance(area, members, heldout)), rel=0.05)


def test_the_variance_of_one_pair_is_that_of_a_coin():
    assert auroc_variance(0.7, 1, 1) == pytest.approx(0.7 * 0.3)
    assert auroc_variance(1.0, 20, 20) == 0
    assert auroc_variance(0.0, 20, 20) == 0


@pytest.mark.parametrize(("area", "members", "heldout"), [(1.2, 5, 5), (math.nan, 5, 5), (0.5, 0, 5), (0.5, 5, 0)])
def test_what_has_no_variance_is_rejected(area, members, heldout):
    with pytest.raises(MetricError):
        auroc_variance(area, members, heldout)


@pytest.mark.parametrize(("area", "members", "heldout"), SIZES)
def test_the_interval_is_symmetric_on_the_logit_scale(area, members, heldout):
    low, high = planned_interval(area, members, heldout)
    half = logit(high) - logit(area)
    assert logit(area) - logit(low) == pytest.approx(half)
    assert half > norm.ppf(0.975) * math.sqrt(auroc_variance(area, members, heldout)) / (area * (1 - area))


def test_one_observation_more_in_each_set_changes_nothing_in_large_ones():
    half = norm.ppf(0.975) * math.sqrt(auroc_variance(0.75, 10**5, 10**5)) / (0.75 * 0.25)
    assert planned_interval(0.75, 10**5, 10**5) == pytest.approx(
        (expit(logit(0.75) - half), expit(logit(0.75) + half)), abs=1e-7
    )


def test_an_area_of_one_has_wilson_s_interval():
    assert planned_interval(1.0, 25, 95) == wilson_interval(1.0, 25)
    assert planned_interval(0.0, 25, 95) == wilson_interval(0.0, 25)


@pytest.mark.slow
@pytest.mark.parametrize(("area", "members", "heldout"), SIZES)
def test_intervals_of_simulated_scores_are_about_as_wide_as_planned(area, members, heldout):
    rng = torch.Generator().manual_seed(0)
    member = torch.arange(members + heldout) < members
    shift = math.sqrt(2) * norm.ppf(area)
    widths = []
    for _ in range(60):
        found = auroc(torch.randn(len(member), generator=rng) + shift * member, member)
        widths.append(found.high - found.low)
    low, high = planned_interval(area, members, heldout)
    assert np.median(widths) == pytest.approx(high - low, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize(("limit", "members", "heldout"), [(0.7, 25, 25), (0.6, 300, 300), (0.85, 95, 25)])
def test_a_threshold_acts_where_the_safe_end_reaches_the_limit(limit, members, heldout, above):
    limit = limit if above else 1 - limit
    at = stops_at(limit, members, heldout, above)
    assert (at > limit) == above
    end = 0 if above else 1
    assert planned_interval(at, members, heldout)[end] == pytest.approx(limit, abs=1e-6)
    between = np.linspace(limit, at, 50)[1:-1]
    assert all(planned_interval(a, members, heldout)[0] <= limit <= planned_interval(a, members, heldout)[1]
               for a in between)  # fmt: skip


@pytest.mark.slow
def test_a_threshold_that_no_value_passes_is_named_so():
    assert wilson_interval(1.0, 5)[0] < 0.95
    assert stops_at(0.95, 5, 5) is None
    assert stops_at(0.05, 5, 5, above=False) is None
    assert wilson_interval(1.0, 5)[0] > 0.55
    assert stops_at(0.55, 5, 5) is not None


def settles(area, limit, members, heldout):
    low, high = planned_interval(area, members, heldout)
    return not low <= limit <= high


def test_the_number_of_texts_that_settles_a_limit_is_the_smallest():
    plenty = needed_to_settle(0.747, 0.7, Scored(25, 25, 3000, 3000))
    assert plenty.members == plenty.heldout  # as many members are scored as held-out texts
    n = plenty.heldout
    assert settles(0.747, 0.7, n, n)
    assert not settles(0.747, 0.7, n - 1, n - 1)
    assert n == next(k for k in range(25, 2000) if settles(0.747, 0.7, k, k))


def test_members_that_are_all_scored_stay_as_they_are():
    found = needed_to_settle(0.747, 0.7, Scored(300, 50, 300, 50))
    assert found.members == 300
    assert found.heldout == next(k for k in range(50, 9000) if settles(0.747, 0.7, 300, k))


def test_where_members_are_the_bottleneck_more_of_them_are_needed():
    assert not settles(0.747, 0.7, 95, 10**9)
    found = needed_to_settle(0.747, 0.7, Scored(95, 25, 95, 25))
    assert found.members > 95
    assert found == needed_to_settle(0.747, 0.7, Scored(25, 25, 3000, 3000))


def test_a_value_at_the_limit_is_never_settled():
    assert needed_to_settle(0.7, 0.7, Scored(95, 25)) is None
    assert needed_to_settle(0.7, 0.70001, Scored(95, 25)) is None


def test_what_is_settled_needs_no_more():
    assert needed_to_settle(0.9, 0.7, Scored(95, 60)) == Needed(95, 60)


def test_an_interval_wider_than_the_model_s_needs_more_texts():
    low, high = planned_interval(0.747, 100, 100, widened=1.3)
    assert planned_interval(0.747, 100, 100)[0] > low
    as_planned = needed_to_settle(0.747, 0.7, Scored(100, 100, 9000, 9000))
    wider = needed_to_settle(0.747, 0.7, Scored(100, 100, 9000, 9000), (low, high))
    assert wider.heldout == pytest.approx(1.3**2 * as_planned.heldout, rel=0.03)


def test_twice_the_distance_needs_four_times_the_texts():
    assert times_as_many(0.65, 0.55, 0.60) == pytest.approx(4)
    assert times_as_many(0.65, 0.75, 0.70) == pytest.approx(4)
    assert times_as_many(0.0, 1.0, 5.7e-296) == math.inf
