"""Simulated coverage of the interval of an AUROC: binormal scores, whose AUROC is known."""

import math
import statistics

import pytest
import torch

from lit_mem.functional.auroc import auroc

TRIALS = 1500  # a rate of 0.95 has a deviation of 0.006, one of 0.025 has 0.004
AREAS = [0.5, 0.9, 0.95, 0.99]


def missed(n_members, n_others, truth, spread=1.0, trials=TRIALS):
    """Rates at which the interval lies above the truth, and below it; `spread` is the members' deviation."""
    generator = torch.Generator().manual_seed(1)
    shift = statistics.NormalDist().inv_cdf(truth) * math.sqrt(1 + spread**2)
    member = torch.arange(n_members + n_others) < n_members
    above = below = 0
    for _ in range(trials):
        score = torch.randn(len(member), generator=generator, dtype=torch.float64)
        score = torch.where(member, spread * score + shift, score)
        area = auroc(score, member)
        above += area.low > truth
        below += area.high < truth
    return above / trials, below / trials


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(30, 30), (60, 60), (300, 300), (30, 300), (300, 30), (10, 300), (10, 10), (3, 3)])
@pytest.mark.parametrize("truth", AREAS)
def test_the_interval_covers_the_true_area(sizes, truth):
    """95 % is meant: 0.93 and more, and no end is beyond the truth in more than 4.5 % (2.5 % meant)."""
    above, below = missed(*sizes, truth)
    assert above + below < 0.07
    assert above < 0.045
    assert below < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("truth", AREAS)
def test_it_does_so_where_members_scores_are_spread_twice_as_wide(truth):
    above, below = missed(60, 60, truth, spread=2.0)
    assert above + below < 0.07
    assert above < 0.045


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.9, 0.95, 0.99])
def test_the_low_end_of_few_examples_is_seldom_above_the_truth(truth):
    """The Wald interval's was in 9, 13 and 25 %; that end stops runs."""
    above, _ = missed(30, 30, truth, trials=300)
    assert above < 0.055
