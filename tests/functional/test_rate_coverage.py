"""Simulated coverage of the intervals of rates, at realistic numbers of units."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from lit_mem.functional.rate import rate_interval, ratio_interval
from lit_mem.functional.roc import tpr_interval

pytestmark = pytest.mark.slow
SIZES = [30, 60, 100, 300]
OTHERS = [pytest.param(*one, marks=pytest.mark.exhaustive) for one in ((30, 0.1), (300, 0.1), (1000, 0.01))]
TRIALS = 1000  # a rate of 0.95 has a deviation of 0.007
LEAST = 0.94 - 2 * 0.007  # nominal to 1 point, and two deviations of the simulation


def mixed(rng, size, *parts):
    """Values of which each part, a share and a drawing, is as frequent as its share."""
    which = rng.choice(len(parts), size, p=[share for share, _ in parts])
    return np.select([which == i for i in range(len(parts))], [draw(size) for _, draw in parts])


def zeros(size):
    return np.zeros(size)


TRUTHS = {
    "no more than one in a hundred": (lambda r, s: (r.random(s) < 0.01) * 1.0, 0.01),
    "one in ten": (lambda r, s: (r.random(s) < 0.1) * 1.0, 0.1),
    "98 % are 0": (lambda r, s: mixed(r, s, (0.98, zeros), (0.02, r.random)), 0.01),
    "85 % are 0": (lambda r, s: mixed(r, s, (0.85, zeros), (0.15, r.random)), 0.075),
    "even": (lambda r, s: r.random(s), 0.5),
    "near 0.2": (lambda r, s: r.beta(2, 8, s), 0.2),
    "at both ends": (lambda r, s: r.beta(0.1, 0.3, s), 0.25),
    "low, and 2 % are 1": (lambda r, s: mixed(r, s, (0.98, lambda n: r.beta(2, 18, n)), (0.02, np.ones)), 0.118),
    "low, and 10 % are 1": (lambda r, s: mixed(r, s, (0.9, lambda n: r.random(n) / 5), (0.1, np.ones)), 0.19),
}


def covered(truth, draws):
    """The share of intervals at 95 % that hold the truth."""
    ends = [interval(0.95) for interval in draws]
    return sum(low <= truth <= high for low, high in ends) / len(ends)


@pytest.mark.parametrize("n", [SIZES[0], *(pytest.param(n, marks=pytest.mark.exhaustive) for n in SIZES[1:])])
@pytest.mark.parametrize("name", TRUTHS)
def test_the_interval_covers_the_true_mean(name, n):
    draw, truth = TRUTHS[name]
    rows = torch.from_numpy(draw(np.random.default_rng(0), (TRIALS, n)))
    assert covered(truth, (rate_interval(row)[1] for row in rows)) >= LEAST


@pytest.mark.parametrize("n", [SIZES[0], *(pytest.param(n, marks=pytest.mark.exhaustive) for n in SIZES[1:])])
@pytest.mark.parametrize("alike", ["not", "somewhat", "all"])
@pytest.mark.parametrize("truth", [0.01, 0.05, 0.3])
def test_the_interval_of_pieces_in_texts_covers_the_true_share(truth, alike, n):
    """One to about six pieces a text; that of as many pieces on their own covers it in half of the samples at worst."""
    rng = np.random.default_rng(1)
    whole = 1 + rng.poisson(2, (TRIALS, n))
    correlation = {"not": 1e-9, "somewhat": 0.3, "all": 1 - 1e-9}[alike]
    if alike == "all":
        chance = (rng.random(whole.shape) < truth) * 1.0
    else:
        spread = 1 / correlation - 1
        chance = rng.beta(truth * spread, (1 - truth) * spread, whole.shape)
    part = rng.binomial(whole, chance)
    pairs = zip(torch.from_numpy(part), torch.from_numpy(whole), strict=True)
    assert covered(truth, (ratio_interval(*pair)[1] for pair in pairs)) >= LEAST


@pytest.mark.parametrize(("n", "fpr"), [(60, 0.1), (300, 0.01), *OTHERS])
@pytest.mark.parametrize("shift", [1.0, *(pytest.param(x, marks=pytest.mark.exhaustive) for x in (0.0, 2.5))])
@pytest.mark.parametrize("members", [30, 300])
def test_the_interval_covers_the_true_rate_at_a_false_positive_rate(members, shift, n, fpr):
    rng, member = np.random.default_rng(2), torch.arange(members + n) < members
    truth = norm.sf(norm.isf(fpr) - shift)
    draws = torch.from_numpy(rng.standard_normal((TRIALS // 2, members + n))) + shift * member
    assert covered(truth, (tpr_interval(scores, member, fpr) for scores in draws)) >= 0.95


@pytest.mark.parametrize("certain", [0.2, 0.6])
def test_it_holds_for_the_scores_that_are_hardest_to_judge(certain):
    """Some members are above all others, the others just below the true threshold, or the true threshold itself."""
    rng, n, fpr = np.random.default_rng(3), 500, 0.01
    member = torch.arange(200 + n) < 200
    for rest, truth in ((1 - fpr - 1e-6, certain), (1 - fpr + 1e-6, 1.0)):
        intervals = []
        for _ in range(TRIALS // 2):
            scores = np.concatenate([np.where(rng.random(200) < certain, 2.0, rest), rng.random(n)])
            intervals.append(tpr_interval(torch.from_numpy(scores), member, fpr))
        assert covered(truth, intervals) >= 0.95 - 2 * 0.01
