"""The strongest attack on one step: everything is known except the noise and the membership of one text.

All others' texts, the weights and the public seed give the sum with the text and without it; the noisy sum that a step
optimizer is close to one of them. The rate of correct guesses gives an epsilon that is a lower bound for the step at 95
% confidence (Clopper and Pearson 1934; Jagielski, Ullman and Oprea 2020, arXiv 2006.07709).
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from lit_mem.data.poisson import StepBatches, filled
from lit_mem.privacy import DPSGD
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.clipping import add_noise_
from lit_mem.privacy.training import PrivateTraining
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.training.objective import TrainingLoss

NOISE, NORM, DELTA, TRIALS = 1.0, 0.01, 0.01, 6000


def sums(model, examples):
    """Clipped sums of a step with a text and without it, by parameter, under the same public seed."""
    scorer, options = TokenScorer(model), DPSGD(noise_multiplier=NOISE, clipping_norm=NORM, batch_size=1, test_seed=0)
    found = []
    for kept in (examples, examples[1:]):
        training = PrivateTraining(options, 100, options.stream())
        training.attach(model)  # without the check, which rejects dropout
        torch.manual_seed(0)
        for batch in StepBatches(kept, 4)[list(range(len(kept)))]:
            training.accumulate(lambda batch=batch: TrainingLoss().by_text(scorer, filled(batch, 4))[0])
        found.append([total.clone() for total in training._totals])
        training.close()
    return found


def scores(with_text, without, trials):
    """How far a noisy sum lies from the one without the text to the one with it; of trials without and with."""
    stream = DPSGD(noise_multiplier=NOISE, test_seed=11).stream()
    direction = torch.cat([(a - b).flatten() for a, b in zip(with_text, without, strict=True)])
    origin = torch.cat([b.flatten() for b in without])
    found = np.empty((2, trials))
    for world, start in enumerate((without, with_text)):
        for i in range(trials):
            totals = [t.clone() for t in start]
            add_noise_(totals, NOISE * NORM, stream, 2 * i + world)
            noisy = torch.cat([t.flatten() for t in totals])
            found[world, i] = torch.dot(noisy - origin, direction) / direction.square().sum()
    return found


def lower_bound(found):
    """Epsilon is above it at 95 % confidence. One half of the trials gives the threshold, the other the counts."""
    (out, into), (out_new, into_new) = np.split(found, 2, axis=1)

    def bound(threshold, out, into):
        n, hits, alarms = len(out), int((into > threshold).sum()), int((out > threshold).sum())
        least = stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
        most = stats.beta.ppf(0.975, alarms + 1, n - alarms) if alarms < n else 1.0
        return math.log((least - DELTA) / most) if least > DELTA else 0.0

    thresholds = np.quantile(np.concatenate([out, into]), np.linspace(0.3, 0.999, 80))
    best = max(thresholds, key=lambda t: bound(t, out, into))
    return max(0.0, bound(best, out_new, into_new))


def exact_epsilon(sensitivity):
    """Of normal noise (Balle and Wang 2018, theorem 8), for a sum that moves by so many deviations."""

    def delta(e):
        half = sensitivity / 2
        return stats.norm.cdf(half - e / sensitivity) - math.exp(e) * stats.norm.cdf(-half - e / sensitivity)

    return brentq(lambda e: delta(e) - DELTA, 0, 100)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("dropout", [0.0, 0.05, 0.5])
def test_what_one_step_tells_of_one_text(dropout, tuned, some_texts):
    claim = epsilon([Steps(NOISE, 1.0, 1)], DELTA)
    assert claim == pytest.approx(exact_epsilon(1 / NOISE), abs=0.03)
    lengths = [9, 30, 4, 12, 7, 3, 18, 25, 11, 6, 14, 5] * 3  # without the first, all after it get other masks
    with_text, without = sums(tuned(targets=("v", "o"), dropout=dropout), some_texts(lengths))
    moved = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(with_text, without, strict=True))) / NORM
    found = lower_bound(scores(with_text, without, TRIALS))
    assert found < exact_epsilon(moved / NOISE)  # the attack itself gives no false bound
    if dropout:
        assert moved > 1.3
        assert found > claim
    else:
        assert moved <= 1 + 1e-6
        assert 0.6 * claim < found <= claim
