"""Exposure and the one-run bound on ε, compared with other implementations and their published values."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from lit_mem.functional.exposure import exposure
from lit_mem.functional.one_run_audit import epsilon_lower_bound, one_run_audit, p_value


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_most_memorized_canary_has_the_highest_exposure():
    """ft-memorization's run_clm.py:268 gives 0 where the tail of the fitted distribution is 0."""
    losses = np.random.default_rng(0).normal(60, 1, 255)
    mean, deviation = losses.mean(), losses.std()
    theirs = []
    for loss in (57.5, 0.0):
        tail = norm.cdf(loss, mean, deviation)
        theirs.append(0.0 if tail == 0 else -math.log2(tail))
    assert theirs[0] > 5
    assert theirs[1] == 0
    ours = exposure(-float64([57.5, 0.0]), -float64(losses.tolist())).tolist()
    assert ours[1] == 8.0 >= ours[0] > 5


def test_the_canary_itself_is_one_of_the_candidates():
    """tensorflow_privacy's exposures_test.py: 4, -.0875 and 2 among 16 others, which excludes the canary from |R|."""
    others, canaries = [float(i) for i in range(1, 17)], [0.0, 20.0, 3.5]
    ranks = [1 + sum(other < canary for other in others) for canary in canaries]
    theirs = [math.log2(16) - math.log2(rank) for rank in ranks]
    assert theirs == pytest.approx([4, -0.0875, 2], abs=5e-5)
    ours = exposure(-float64(canaries), -float64(others)).tolist()
    assert ours == pytest.approx([exposed + math.log2(17 / 16) for exposed in theirs], abs=1e-12)
    assert min(ours) == 0


def test_canaries_that_tie_with_all_others_are_not_exposed():
    """tensorflow_privacy sorts all canaries in one list with the inserted ones first, where they stay if tied."""
    inserted, heldout = np.full(3, 7.0), np.full(8, 7.0)
    is_heldout = np.array([0] * 3 + [1] * 8)[np.argsort(np.concatenate([inserted, heldout]), kind="stable")]
    theirs = math.log2(8) - np.log2(np.cumsum(is_heldout)[is_heldout == 0] + 1)
    assert theirs.tolist() == [3, 3, 3]
    assert exposure(float64(inserted), float64(heldout)).tolist() == [math.log2(9) - math.log2(5)] * 3


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_bound_that_is_the_best_over_thresholds_is_corrected():
    """PrivacyGuard's compute_acc_auc_ci_epsilon takes the highest ε of all thresholds without correction.

    For random scores, where the truth is 0, each such interval is too high in one run of twenty, and the
    highest of many in most.
    """
    generator = torch.Generator().manual_seed(0)
    guesses, theirs, ours = list(range(10, 201, 10)), 0, 0
    for _ in range(200):
        score, member = torch.randn(200, generator=generator), torch.rand(200, generator=generator) < 0.5
        order = member[score.argsort(descending=True)]
        right = {r: int(order[:r].sum()) for r in guesses}
        theirs += any(p_value(200, r, v, 0.0) < 0.05 for r, v in right.items())
        ours += one_run_audit(score, member, guesses).epsilon > 0
    assert theirs > 20
    assert ours <= 10


@pytest.mark.slow
@pytest.mark.exhaustive
def test_one_run_bounds_of_normal_scores():
    """jax_privacy's test_epsilon_one_run_close: "in" guesses only, the best corner of the hull, Bonferroni."""
    quantiles = norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    for shift, expected in ((0, 0.0), (1, 1.13346), (2, 2.311945), (4, 4.395568)):
        thresholds = np.union1d(quantiles, quantiles + shift)
        above_in = 10_000 - np.searchsorted(quantiles + shift, [*thresholds, np.inf])
        above_out = 10_000 - np.searchsorted(quantiles, [*thresholds, np.inf])
        corners = upper_hull(list(zip(above_out.tolist(), above_in.tolist(), strict=True))[::-1])
        alpha = 0.05 / len(corners)
        corners = [(wrong, right) for wrong, right in corners if right]
        # Highest scores first: most others then cannot beat them, as shown by their share of correct guesses.
        corners.sort(key=lambda c: (c[1] - 2 * math.sqrt(c[0])) / sum(c), reverse=True)
        best = 0.0
        for wrong, right in corners:
            n = wrong + right
            if right / n > 1 / (1 + math.exp(-best)) and p_value(20_000, n, right, best, 1e-6) < alpha:
                best = max(best, epsilon_lower_bound(20_000, n, right, 1e-6, 1 - alpha))
        assert best == pytest.approx(expected, rel=1e-5)


def upper_hull(points):
    """Corners of the upper hull of points in ascending order."""
    corners = []
    for c in points:
        while len(corners) > 1:
            a, b = corners[-2:]
            if (c[1] - a[1]) * (b[0] - a[0]) < (b[1] - a[1]) * (c[0] - a[0]):
                break
            corners.pop()
        corners.append(c)
    return corners
