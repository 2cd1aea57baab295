"""Epsilon and noise against published tables, another library's numbers, and the mechanism's closed form."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from lit_mem.errors import ConfigError
from lit_mem.privacy import accountant
from lit_mem.privacy.accountant import Steps, epsilon, merged, number_of_steps
from lit_mem.privacy.calibration import noise_for, steps_within

TABLE = [
    # sample rate, steps, delta, target epsilon, noise by RDP, by PRV, by Google's dp-accounting (PLD)
    (0.125, 24, 1e-4, 1, 2.539, 2.314, 2.289),
    (0.125, 24, 1e-4, 3, 1.250, 1.143, 1.140),
    (0.125, 24, 1e-4, 8, 0.754, 0.695, 0.694),
    (0.01, 1000, 1e-5, 1, 1.523, 1.426, 1.415),
    (0.01, 1000, 1e-5, 3, 0.866, 0.815, 0.814),
    (0.01, 1000, 1e-5, 8, 0.616, 0.587, 0.586),
    (0.001, 10000, 1e-5, 3, 0.619, 0.573, 0.573),
]


QUICK = (3,)  # rows of the table


@pytest.mark.parametrize(
    ("rate", "steps", "delta", "target", "rdp", "prv", "pld"),
    [pytest.param(*row, marks=[] if i in QUICK else pytest.mark.slow) for i, row in enumerate(TABLE)],
)
def test_noise_is_that_of_other_accountants(rate, steps, delta, target, rdp, prv, pld):
    assert noise_for(target, delta, rate, steps, kind="rdp") == pytest.approx(rdp, abs=0.03)
    found = noise_for(target, delta, rate, steps)
    assert found == pytest.approx(prv, abs=0.03)
    assert found >= pld - 1e-3  # a tight bound from above: less noise would break the promise
    spent = epsilon([Steps(found, rate, steps)], delta)
    assert 0.97 * target < spent <= target


def test_epsilon_is_opacus_own():
    from opacus.accountants import PRVAccountant, RDPAccountant

    for kind, library in (("prv", PRVAccountant), ("rdp", RDPAccountant)):
        theirs = library()
        for _ in range(1000):
            theirs.step(noise_multiplier=1.0, sample_rate=0.01)
        assert epsilon([Steps(1.0, 0.01, 1000)], 1e-5, kind) == theirs.get_epsilon(1e-5)


def test_golden_epsilons():
    """Google's PLD accountant gives 1.8282 here; the Gaussian approximation 1.6177, which is not a bound."""
    steps = [Steps(1.0, 0.01, 1000)]
    assert epsilon(steps, 1e-5) == pytest.approx(1.8384, abs=2e-3)
    assert epsilon(steps, 1e-5, "rdp") == pytest.approx(2.1014, abs=2e-3)


@pytest.mark.parametrize("noise", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_without_sampling_it_is_the_gaussian_mechanism(noise, steps):
    """δ(ε) of the Gaussian mechanism in closed form (Balle and Wang 2018, theorem 8); T steps are one with σ/√T."""
    sigma = noise / steps**0.5

    def delta_of(eps):
        return norm.cdf(0.5 / sigma - eps * sigma) - math.exp(eps) * norm.cdf(-0.5 / sigma - eps * sigma)

    exact = brentq(lambda eps: delta_of(eps) - 1e-5, 0, 60)
    found = epsilon([Steps(noise, 1 - 1e-9, steps)], 1e-5)
    assert exact <= found <= exact + 0.03


def test_no_step_costs_nothing_and_no_noise_everything():
    assert epsilon([], 1e-5) == epsilon([Steps(1.0, 0.1, 0)], 1e-5) == 0.0
    assert epsilon([Steps(0.0, 0.1, 1)], 1e-5) == math.inf
    assert epsilon([Steps(1.0, 0.1, 3), Steps(0.0, 0.1, 1)], 1e-5) == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.05, 0.2, 30.0, 1e5])
def test_numbers_that_the_tight_accountant_cannot_bear_give_a_bound_all_the_same(noise):
    found = epsilon([Steps(noise, 0.01, 10)], 1e-5)
    assert 0 < found
    assert not math.isnan(found)
    assert found <= epsilon([Steps(noise, 0.01, 10)], 1e-5, "rdp")


def test_a_failure_of_the_tight_accountant_gives_the_looser_bound(monkeypatch):
    monkeypatch.setattr(accountant, "_prv_epsilon", lambda *a: math.inf)
    steps = [Steps(1.0, 0.01, 777)]
    assert epsilon(steps, 1e-5) == epsilon(steps, 1e-5, "rdp") < math.inf


@pytest.mark.slow
@pytest.mark.parametrize(
    "history",
    [(Steps(1.0, 0.01, 1000),), (Steps(1e3, 0.01, 10_000),), (Steps(1.0, 0.01, 100), Steps(2.0, 0.02, 900))],
)
def test_the_size_of_the_grids_is_known_beforehand(history, monkeypatch):
    from opacus.accountants import PRVAccountant

    sizes = []
    whole = PRVAccountant._get_domain
    monkeypatch.setattr(PRVAccountant, "_get_domain", lambda *a, **k: sizes.append(whole(*a, **k)) or sizes[-1])
    accountant._prv_epsilon(history, 1e-5, 0.01)
    (grid,) = sizes
    assert accountant._points(history, 1e-5, 0.01) == pytest.approx(grid.size * len(history), rel=0.05)


@pytest.mark.slow
def test_very_many_steps_cost_bounded_time_and_still_give_a_bound(monkeypatch):
    """At noise 1000 the finer grid of 10^6 steps would have 2 * 10^7 points, and a ledger may hold 10^9 steps."""
    steps = (Steps(1e3, 0.01, 10_000),)
    exact = epsilon(steps, 1e-5)
    accountant._epsilon.cache_clear()
    errors = []
    whole = accountant._prv_epsilon
    monkeypatch.setattr(accountant, "_prv_epsilon", lambda h, d, e: errors.append(e) or whole(h, d, e))
    monkeypatch.setattr(accountant, "_MOST_POINTS", 1e5)
    found = epsilon(steps, 1e-5)
    accountant._epsilon.cache_clear()
    assert exact < found <= epsilon(steps, 1e-5, "rdp")
    assert 0.01 < errors[0] < 0.1
    assert all(accountant._points(steps, 1e-5, error) <= 1.05e5 for error in errors)


@pytest.mark.slow
def test_tiny_epsilons_are_not_swallowed_by_the_accountants_own_error():
    """PRV adds 0.01 to what it finds."""
    steps = [Steps(60.0, 0.01, 100)]
    found = epsilon(steps, 1e-5)
    assert 0 < found < 0.01
    assert found <= epsilon(steps, 1e-5, "rdp")
    noise = noise_for(0.02, 1e-5, 0.01, 100)
    assert 0.018 < epsilon([Steps(noise, 0.01, 100)], 1e-5) <= 0.02


@pytest.mark.parametrize("kind", ["rdp", pytest.param("prv", marks=pytest.mark.slow)])
def test_more_steps_less_noise_and_more_sampling_cost_more(kind):
    base = epsilon([Steps(1.0, 0.05, 10)], 1e-5, kind)
    assert epsilon([Steps(0.9, 0.05, 10)], 1e-5, kind) > base
    assert epsilon([Steps(1.0, 0.06, 10)], 1e-5, kind) > base
    assert epsilon([Steps(1.0, 0.05, 10)], 1e-7, kind) > base
    mixed = epsilon([Steps(1.0, 0.05, 10), Steps(2.0, 0.05, 5)], 1e-5, kind)
    assert base < mixed < epsilon([Steps(1.0, 0.05, 15)], 1e-5, kind)


@pytest.mark.slow
def test_history_is_counted_whatever_its_pieces():
    pieces = [Steps(1.0, 0.1, 2), Steps(1.0, 0.1, 0), Steps(1.0, 0.1, 3), Steps(2.0, 0.1, 1), Steps(1.0, 0.1, 1)]
    assert [steps.number for steps in merged(pieces)] == [5, 1, 1]
    assert number_of_steps(pieces) == 7
    assert epsilon(pieces[:3], 1e-5) == epsilon([Steps(1.0, 0.1, 5)], 1e-5)


@pytest.mark.slow
def test_noise_takes_earlier_steps_into_account():
    before = [Steps(1.0, 0.05, 20)]
    alone, after = (noise_for(3.0, 1e-5, 0.05, 20, history, "rdp") for history in ([], before))
    assert after > alone
    assert 2.95 < epsilon([*before, Steps(after, 0.05, 20)], 1e-5, "rdp") <= 3.0


def test_a_spent_budget_is_rejected():
    with pytest.raises(ConfigError, match=r"no noise keeps epsilon at 1 .* after an epsilon of 23\.1 already spent"):
        noise_for(1.0, 1e-5, 0.05, 100, [Steps(0.6, 0.1, 100)], "rdp")


@pytest.mark.parametrize("kind", ["rdp", pytest.param("prv", marks=pytest.mark.slow)])
def test_steps_within_a_budget(kind):
    kept = steps_within(2.0, 1e-5, 1.0, 0.05, 10_000, kind=kind)
    assert epsilon([Steps(1.0, 0.05, kept)], 1e-5, kind) <= 2.0 < epsilon([Steps(1.0, 0.05, kept + 1)], 1e-5, kind)
    assert steps_within(2.0, 1e-5, 1.0, 0.05, kept - 1, kind=kind) == kept - 1
    before = [Steps(1.0, 0.05, 5)]
    assert steps_within(2.0, 1e-5, 1.0, 0.05, 10_000, before, kind=kind) == kept - 5 > 0
    assert steps_within(0.01, 1e-5, 0.5, 0.5, 100, kind=kind) == 0


@pytest.mark.slow
def test_the_tighter_accountant_allows_more_steps():
    fewer, more = (steps_within(2.0, 1e-5, 1.0, 0.05, 10_000, kind=kind) for kind in ("rdp", "prv"))
    assert fewer < more


def test_the_numpy_state_of_errors_is_left_alone():
    before = np.geterr()
    epsilon([Steps(0.05, 0.01, 10)], 1e-5)
    assert np.geterr() == before
