"""Values stated by other projects' tests or our notes on them, where they apply to lit_mem."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from sklearn.metrics import roc_auc_score

from lit_mem.functional.auroc import auroc
from lit_mem.functional.roc import roc_curve, tpr_at_fpr
from lit_mem.functional.tries import probability_within


def toy(order):
    """Scores that decrease along a word of M (member) and N (non-member)."""
    member = torch.tensor([letter == "M" for letter in order])
    return torch.arange(len(order), 0, -1, dtype=torch.float64), member


def hull(order):
    """Corners of the ROC's convex hull."""
    fpr, tpr = roc_curve(*toy(order))
    corners = []
    for point in zip(fpr.tolist(), tpr.tolist(), strict=True):
        while len(corners) > 1 and above(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return corners


def above(a, b, c):
    """Whether the line from a to c passes above b, or through it."""
    return (c[1] - a[1]) * (b[0] - a[0]) >= (b[1] - a[1]) * (c[0] - a[0])


def test_the_area_is_not_that_of_the_convex_hull():
    """jax_privacy's `attack_auroc`, which allows for randomised attackers, is .8125 where scikit-learn's is .6875.

    Our notes have both areas but not the scores; these are our own, with the same two areas.
    """
    order = "MNMNMMNN"
    corners = hull(order)
    theirs = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(corners))
    score, member = toy(order)
    wins = sum(m > n for m in score[member].tolist() for n in score[~member].tolist())
    assert theirs == 0.8125
    assert auroc(score, member).value == roc_auc_score(member, score) == wins / 16 == 0.6875


def test_true_positive_rates_are_those_of_thresholds():
    """jax_privacy's toy gives [.5, .75, 1, 1, 1] over the hull; at the second rate no threshold reaches more than .5.

    Again the rates are from our notes, and the scores are our own.
    """
    order, rates = "MMNNMMNN", [0.0, 0.25, 0.5, 0.75, 1.0]
    corners = hull(order)
    theirs = []
    for rate in rates:
        line = [(a, b) for a, b in pairwise(corners) if a[0] <= rate <= b[0] and a[0] < b[0]]
        theirs.append(max(a[1] + (rate - a[0]) / (b[0] - a[0]) * (b[1] - a[1]) for a, b in line))
    assert theirs == [0.5, 0.75, 1.0, 1.0, 1.0]
    assert [tpr_at_fpr(*toy(order), rate) for rate in rates[1:-1]] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(("n", "expected"), [(2, 0.96), (5, 0.99968)])
def test_a_probability_of_four_fifths_in_two_and_five_tries(n, expected):
    """PrivacyGuard's test_probabilistic_memorization.py."""
    assert float(1 - (1 - Fraction(4, 5)) ** n) == pytest.approx(expected, abs=1e-12)
    logprob = torch.tensor([math.log(0.8)], dtype=torch.float64)
    assert probability_within(logprob, n).item() == pytest.approx(expected, abs=1e-12)


def test_a_probability_of_1e_minus_17_in_1e18_tries():
    """Our notes: the plain formula gives 0, the truth is .99995."""
    assert 1 - (1 - 1e-17) ** 1e18 == 0
    logprob = torch.tensor([-17 * math.log(10)], dtype=torch.float64)
    assert probability_within(logprob, 1e18).item() == pytest.approx(0.99995, abs=5e-6)
