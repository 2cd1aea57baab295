"""Probability of a text in many tries: golden numbers, simulation, and the far tail."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.functional.tries import log_tries, probability_within


def within(logprob, n):
    return probability_within(torch.tensor([logprob], dtype=torch.float64), n).item()


@pytest.mark.parametrize(("p", "n", "expected"), [(0.8, 2, 0.96), (0.8, 5, 0.99968)])
def test_golden_numbers_of_privacyguard(p, n, expected):
    assert within(math.log(p), n) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 99), st.integers(1, 60))
def test_the_formula_in_exact_fractions(percent, n):
    p = Fraction(percent, 100)
    assert within(math.log(p), n) == pytest.approx(float(1 - (1 - p) ** n), rel=1e-12)


def test_a_probability_below_rounding_still_counts():
    """1 − (1 − 1e-17)^1e18 is 1 − exp(−10), where the plain formula gives 0."""
    assert 1 - (1 - 1e-17) ** 1e18 == 0
    assert within(math.log(1e-17), 1e18) == pytest.approx(-math.expm1(-10), rel=1e-9)
    assert within(math.log(1e-17), 1e18) == pytest.approx(0.99995, abs=1e-5)
    # Far below the smallest float64, relative precision holds as well.
    assert within(-2000.0, 1e6) == 0.0
    assert within(-700.0, 1) == pytest.approx(math.exp(-700), rel=1e-9)


def test_the_two_branches_meet():
    left, right = within(-30.0 - 1e-9, 1e13), within(-30.0 + 1e-9, 1e13)
    assert left == pytest.approx(right, rel=1e-7)


@pytest.mark.parametrize("n", [1, 10, 1e18])
def test_never_and_always(n):
    assert within(-math.inf, n) == 0.0
    assert within(0.0, n) == 1.0


@given(st.floats(-600, -1e-3), st.floats(0.01, 0.99))
def test_tries_and_probability_are_inverse(logprob, p):
    tries = log_tries(torch.tensor([logprob], dtype=torch.float64), p)
    n = tries.exp().item()
    if 1 <= n < 1e300:
        assert within(logprob, n) == pytest.approx(p, rel=1e-6)


def test_tries_by_the_papers_formula():
    assert log_tries(torch.tensor([0.25]).log(), 0.9).exp().item() == pytest.approx(
        math.log(0.1) / math.log(0.75), rel=1e-6
    )
    assert log_tries(torch.tensor([-math.inf]), 0.5).item() == math.inf


def test_simulation():
    p, n, runs = 0.03, 20, 100_000
    generator = torch.Generator().manual_seed(0)
    found = (torch.rand(runs, n, generator=generator) < p).any(dim=1).double().mean().item()
    assert within(math.log(p), n) == pytest.approx(found, abs=0.006)
