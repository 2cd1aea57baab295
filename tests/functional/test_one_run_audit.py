"""The one-run bound on ε: published values, exact fractions, mechanisms with known ε, and a broken one."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom, norm

from lit_mem.errors import MetricError
from lit_mem.functional.one_run_audit import epsilon_lower_bound, n_correct_guesses, one_run_audit, p_value

FAST = settings(deadline=None, max_examples=3 * settings.default.max_examples // 5)


# -- published values and closed forms ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "expected"),
    [
        (1000, 100, 95, 1e-5, 2.165176),
        (1000, 1000, 600, 1e-5, 0.297227),
        (10_000, 200, 190, 1e-6, 2.393618),
        (500, 50, 50, 1e-5, 2.770507),
        (200, 100, 80, 0, 0.958392),
        (100_000, 1000, 990, 1e-6, 4.021219),
    ],
)
def test_golden_bounds(m, r, v, delta, expected):
    assert epsilon_lower_bound(m, r, v, delta) == pytest.approx(expected, abs=5.1e-7)


@pytest.mark.parametrize(("r", "expected"), [(10, 1.051873), (50, 2.784727), (100, 3.492965), (1000, 5.809068)])
def test_all_right_is_the_closed_form(r, expected):
    share = 0.05 ** (1 / r)
    assert math.log(share / (1 - share)) == pytest.approx(expected, abs=5.1e-7)
    assert epsilon_lower_bound(r, r, r) == pytest.approx(math.log(share / (1 - share)), rel=1e-8)


def test_a_million_right_guesses_keep_their_digits():
    """1 − q is 3e-6 here; a chance of being right that is rounded near 1 would lose it."""
    wrong = -math.expm1(math.log(0.05) / 1e6)
    assert epsilon_lower_bound(10**6, 10**6, 10**6) == pytest.approx(math.log1p(-wrong) - math.log(wrong), rel=1e-8)


@pytest.mark.parametrize(("delta", "expected"), [(0, 2.73581e-5), (1e-3, 0.00816666)])
def test_golden_p_values(delta, expected):
    assert p_value(100, 100, 90, 1.0, delta) == pytest.approx(expected, rel=2e-6)


# -- an oracle in fractions -----------------------------------------------------------------------------------


def exact_p_value(m, r, v, odds, delta):
    """Theorem 5.2, written as it is printed; odds = e^ε."""
    q = odds / (1 + odds)
    pmf = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    most = max((sum(pmf[v - i : v]) / i for i in range(1, v + 1)), default=Fraction(0))
    return min(Fraction(1), sum(pmf[v:]) + 2 * m * delta * most)


@FAST
@given(data=st.data())
def test_p_values_are_those_of_exact_fractions(data):
    m = data.draw(st.integers(1, 12))
    r = data.draw(st.integers(0, m))
    v = data.draw(st.integers(0, r))
    odds = Fraction(data.draw(st.integers(4, 80)), 4)
    delta = Fraction(data.draw(st.integers(0, 20)), 1000)
    expected = exact_p_value(m, r, v, odds, delta)
    assert p_value(m, r, v, math.log(odds), float(delta)) == pytest.approx(float(expected), rel=1e-12)


# -- properties -----------------------------------------------------------------------------------------------

COUNTS = st.integers(1, 60).flatmap(lambda r: st.tuples(st.integers(r, 2 * r), st.just(r), st.integers(0, r)))
DELTAS = st.sampled_from([0.0, 1e-6, 1e-4, 1e-2])


@FAST
@given(counts=COUNTS, delta=DELTAS, confidence=st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_the_bound_is_where_the_claim_is_just_refuted(counts, delta, confidence):
    bound = epsilon_lower_bound(*counts, delta, confidence)
    if bound == 0:
        assert p_value(*counts, 0.0, delta) >= 1 - confidence
        return
    assert p_value(*counts, bound, delta) < 1 - confidence
    assert p_value(*counts, bound * (1 + 1e-6) + 1e-8, delta) >= 1 - confidence


@pytest.mark.slow
@FAST
@given(counts=COUNTS, delta=DELTAS)
def test_what_proves_less_bounds_less(counts, delta):
    m, r, v = counts
    bound = epsilon_lower_bound(m, r, v, delta)
    assert epsilon_lower_bound(m, r, v, delta, 0.99) <= bound
    assert epsilon_lower_bound(2 * m, r, v, delta) <= bound
    assert epsilon_lower_bound(m, r, v, max(10 * delta, 1e-5)) <= bound
    assert bound <= epsilon_lower_bound(m, r, v, 0.0)
    assert v == 0 or epsilon_lower_bound(m, r, v - 1, delta) <= bound
    if 2 * v <= r:
        assert bound == 0


def test_a_large_delta_leaves_nothing_to_prove():
    assert epsilon_lower_bound(100, 100, 100, 1e-6) > 3
    assert 0 < epsilon_lower_bound(100, 100, 100, 0.01) < 1
    assert epsilon_lower_bound(100, 100, 100, 0.1) == 0


# -- mechanisms whose ε is known ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("r", [50, 100])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_randomised_response_is_bounded_too_high_in_one_case_of_twenty_at_most(r, epsilon):
    """It guesses each coin correctly with probability q: their number is binomial, so the level can be summed.

    It is also the worst case of the theorem, so the level is reached up to the discreteness of a binomial.
    """
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    too_high = [v for v in range(r + 1) if epsilon_lower_bound(r, r, v) > epsilon]
    level = binom.pmf(too_high, r, q).sum()
    assert 0.005 < level <= 0.05


def epsilon_of_gaussian(sigma, delta):
    """The ε of adding N(0, σ²) to a sum that one canary changes by 1, at δ (Balle & Wang 2018, theorem 8)."""

    def gap(epsilon):
        shift = 1 / (2 * sigma)
        return norm.cdf(shift - epsilon * sigma) - math.exp(epsilon) * norm.cdf(-shift - epsilon * sigma) - delta

    return brentq(gap, 0, 100)


def released(n, sigma, generator):
    """One run of the Gaussian mechanism: each canary's coin in a coordinate of its own, plus noise."""
    coins = torch.rand(n, generator=generator) < 0.5
    return coins.double() + sigma * torch.randn(n, generator=generator, dtype=torch.float64), coins


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [pytest.param(0.5, marks=pytest.mark.slow), 1.0, 4.0])
def test_the_gaussian_mechanism_is_not_bounded_above_its_epsilon(sigma):
    delta, trials, generator = 1e-5, 60, torch.Generator().manual_seed(0)
    truth = epsilon_of_gaussian(sigma, delta)
    bounds = []
    for _ in range(trials):
        score, coins = released(300, sigma, generator)
        bounds.append(one_run_audit(score, coins, [30, 300], delta).epsilon)
    assert sum(bound > truth for bound in bounds) <= 0.05 * trials
    if sigma <= 1:
        assert np.mean(bounds) > 0.1 * truth  # nor so far below it that the test could not fail


@pytest.mark.parametrize("claimed_sigma", [1.0, 2.0, 4.0])
def test_noise_that_was_left_out_is_caught(claimed_sigma):
    delta, generator = 1e-5, torch.Generator().manual_seed(1)
    claim = epsilon_of_gaussian(claimed_sigma, delta)
    bounds = []
    for sigma in (claimed_sigma, 0.0):
        score, coins = released(2000, sigma, generator)
        bounds.append(one_run_audit(score, coins, [500], delta).epsilon)
    assert bounds[0] < claim < bounds[1]


def test_noise_of_a_tenth_is_caught():
    """As where the noise is divided by the batch size twice."""
    delta, generator = 1e-5, torch.Generator().manual_seed(2)
    score, coins = released(1000, 0.2, generator)
    assert one_run_audit(score, coins, [250], delta).epsilon > epsilon_of_gaussian(2.0, delta)


@pytest.mark.slow
def test_the_best_of_several_numbers_of_guesses_holds_only_corrected():
    """Scores independent of the coins: every bound above 0 is wrong."""
    guesses, trials, generator = list(range(40, 401, 40)), 300, torch.Generator().manual_seed(3)
    wrong = uncorrected = 0
    for _ in range(trials):
        score, coins = torch.randn(400, generator=generator), torch.rand(400, generator=generator) < 0.5
        wrong += one_run_audit(score, coins, guesses).epsilon > 0
        counts = [(n, n_correct_guesses(score, coins, n - n // 2, n // 2)) for n in guesses]
        uncorrected += any(p_value(400, n, v, 0.0) < 0.05 for n, v in counts)
    assert wrong / trials <= 0.05
    assert uncorrected / trials > 0.1


# -- guesses --------------------------------------------------------------------------------------------------


def test_guesses_are_the_highest_and_the_lowest():
    score = torch.tensor([0.3, -5.0, 9.0, 0.0, 1e30, -1e30])
    member = torch.tensor([True, True, True, False, False, False])
    counts = [
        n_correct_guesses(score, member, *pair) for pair in [(1, 0), (2, 0), (0, 1), (0, 2), (2, 2), (3, 3), (0, 0)]
    ]
    assert counts == [0, 1, 1, 1, 2, 4, 0]


@FAST
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30), st.data())
def test_guesses_are_those_of_a_plain_sort_where_nothing_is_tied(rows, data):
    scores = {s for s, _ in rows}
    if len(scores) < 2:
        return  # all equal: see below
    rows = [next(row for row in rows if row[0] == s) for s in sorted(scores)]
    n_in = data.draw(st.integers(0, len(rows)))
    n_out = data.draw(st.integers(0, len(rows) - n_in))
    expected = sum(m for _, m in rows[len(rows) - n_in :]) + sum(not m for _, m in rows[:n_out])
    order = data.draw(st.permutations(rows))
    score = torch.tensor([float(s) for s, _ in order])
    assert n_correct_guesses(score, torch.tensor([m for _, m in order]), n_in, n_out) == expected


@pytest.mark.parametrize("first", [True, False])
def test_ties_tell_nothing_even_if_the_inserted_stand_first(first):
    """A stable sort of scores that are next to all 0 would be a perfect guess."""
    member, score = (torch.arange(2000) < 1000) == first, torch.zeros(2000)
    score[7] = 1.0
    assert 900 < n_correct_guesses(score, member, 1000, 1000) < 1100
    assert one_run_audit(score, member, [200, 2000]).epsilon == 0


def test_scores_that_are_all_the_same_prove_nothing_whatever_the_coins():
    """Before training; a draw among ties would prove something in one case of twenty."""
    for seed in range(60):
        member = torch.rand(100, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert one_run_audit(torch.full((100,), -2.5), member, [20, 100]) == (0.0, 20, 0)


def test_the_audit_is_the_best_bound_at_the_divided_level():
    generator = torch.Generator().manual_seed(4)
    score, coins = released(200, 0.7, generator)
    guesses = [20, 50, 200]
    found = {}
    for n in guesses:
        v = n_correct_guesses(score, coins, n // 2, n // 2)
        found[epsilon_lower_bound(200, n, v, 1e-5, 1 - 0.1 / 3)] = (n, v)
    best = max(found)
    assert one_run_audit(score, coins, [200, 20, 50, 20], 1e-5, 0.9) == pytest.approx((best, *found[best]))
    assert len(found) == 3
    assert all(a != b for a, b in pairwise(sorted(found)))
    odd = one_run_audit(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([True, True, False]), [3])
    assert (odd.n_guesses, odd.n_correct) == (3, 3)


# -- what cannot be computed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(5, 6, 1), (5, 3, 4), (5, 3, -1), (0, 1, 0)])
def test_counts_that_cannot_be_are_rejected(counts):
    with pytest.raises(MetricError, match="expected correct <= guesses <= canaries"):
        p_value(*counts, 1.0)


@pytest.mark.parametrize(("delta", "confidence"), [(-1e-9, 0.95), (1.1, 0.95), (0, 0), (0, 1), (math.nan, 0.95)])
def test_rates_out_of_range_are_rejected(delta, confidence):
    with pytest.raises(
        MetricError, match=r"^(delta is .* at least 0 and at most 1|confidence is .* above 0 and below 1)$"
    ):
        epsilon_lower_bound(10, 10, 9, delta, confidence)


@pytest.mark.parametrize(
    ("score", "guesses", "message"),
    [
        ([1.0, math.nan], [2], "1 of 2 canaries' scores are not finite"),
        ([1.0, math.inf], [2], "not finite"),
        ([1.0, 2.0], [3], "from 1 to 2"),
        ([1.0, 2.0], [0, 2], "from 1 to 2"),
        ([1.0, 2.0], [], "at least one"),
        ([1.0, 2.0, 3.0], [2], r"score \(3,\), member \(2,\)"),
    ],
)
def test_scores_that_cannot_be_audited_are_rejected(score, guesses, message):
    with pytest.raises(MetricError, match=message):
        one_run_audit(torch.tensor(score), torch.tensor([True, False]), guesses)


def test_more_guesses_than_canaries_are_rejected():
    with pytest.raises(MetricError, match=r"3 and 3 guesses.* at most 5 canaries"):
        n_correct_guesses(torch.arange(5.0), torch.zeros(5, dtype=torch.bool), 3, 3)


def test_no_canary_and_no_guess_prove_nothing():
    assert epsilon_lower_bound(0, 0, 0) == 0
    assert epsilon_lower_bound(10, 0, 0, 1e-5) == 0
    assert n_correct_guesses(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 0, 0) == 0
