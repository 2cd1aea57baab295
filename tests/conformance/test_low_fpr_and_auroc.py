"""From scores to AUROC and to the true-positive rate at a low false-positive rate."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as points_of

from lit_mem.attacks import Loss
from lit_mem.callbacks import MembershipInference
from lit_mem.errors import MetricError
from lit_mem.functional.auroc import auroc
from lit_mem.functional.roc import best_balanced_accuracy, tpr_at_fpr


def sets(members, others):
    """Scores and membership of two sets."""
    score = torch.tensor([*members, *others], dtype=torch.float64)
    return score, torch.tensor([True] * len(members) + [False] * len(others))


def test_scores_are_ranked_and_not_squashed():
    """torchmetrics' BinaryAUROC passes scores outside [0, 1] through a sigmoid, which ties large ones."""
    score, member = sets([-310.0, -305.0], [-320.0])
    theirs = roc_auc_score(member, torch.sigmoid(score.float()))
    assert theirs == 0.5
    assert auroc(score, member).value == roc_auc_score(member, score) == 1.0


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_interval_lies_around_the_estimate():
    """mimir's bootstrap negates scores twice: its mean is 1 − AUROC (.232 for .768 in our notes)."""
    rng = np.random.default_rng(0)
    score, member = sets(rng.normal(1, 1, 80), rng.normal(0, 1, 80))
    ours = auroc(score, member)
    resampled, theirs = [], []
    for _ in range(400):
        rows = rng.integers(0, 160, 160)
        resampled.append(roc_auc_score(member[rows], score[rows]))
        theirs.append(roc_auc_score(member[rows], -score[rows]))
    assert max(theirs) < ours.value
    assert sum(theirs) / 400 == pytest.approx(1 - ours.value, abs=0.01)
    assert ours.low < ours.value < ours.high
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.02)


def test_a_score_that_is_not_a_number_is_an_error_and_not_left_out():
    """mimir silently drops NaN scores: those of short texts, so the metric is over other examples."""
    members, others = [3.0, 2.0, math.nan, math.nan], [2.5, 1.0, 1.5, 0.5]
    theirs = roc_auc_score([True] * 2 + [False] * 4, [m for m in members if not math.isnan(m)] + others)
    assert theirs == 0.875
    for measure in (auroc, lambda s, m: tpr_at_fpr(s, m, 0.3)):
        with pytest.raises(MetricError, match="2 of 8 attack scores are not finite"):
            measure(*sets(members, others))


# True-positive rate at a low false-positive rate ------------------------------------------------------------------


def test_a_false_positive_rate_of_exactly_the_limit_is_allowed():
    """mimir and detect-pretrain-code take the last point *below* the rate (<): one of 100 non-members is too many."""
    score, member = sets([1.0] * 10, [1.5] + [0.0] * 99)
    fpr, tpr, _ = points_of(member, score)
    theirs = tpr[np.where(fpr < 0.01)[0][-1]]
    assert theirs == 0.0
    assert tpr_at_fpr(score, member, 0.01) == 1.0


def test_no_point_above_the_limit_is_read():
    """LLM-PBE takes the first point *above* the rate, an attack with more false positives than stated."""
    score, member = sets([1.0] * 10, [1.0] * 2 + [0.0] * 998)
    fpr, tpr, _ = points_of(member, score)
    theirs = tpr[np.where(fpr > 0.001)[0][0]]
    assert theirs == 1.0
    assert tpr_at_fpr(score, member, 0.001) == 0.0


def test_the_nearest_point_is_not_good_enough():
    """mia_llms_benchmark reads the point with the nearest rate, here 1.2 % for 1 %."""
    score, member = sets([1.0] * 10, [1.0] * 12 + [0.0] * 988)
    fpr, tpr, _ = points_of(member, score)
    theirs = tpr[np.abs(fpr - 0.01).argmin()]
    assert theirs == 1.0
    assert tpr_at_fpr(score, member, 0.01) == 0.0


def test_nothing_is_interpolated_between_thresholds():
    """jax_privacy interpolates over the convex hull: the average rate of a randomised attacker, not of a threshold."""
    score, member = sets([2.0] * 10, [2.0] * 2 + [-1.0] * 98)
    fpr, tpr, _ = points_of(member, score)
    theirs = np.interp(0.01, fpr, tpr)
    assert theirs == pytest.approx(0.5)
    assert tpr_at_fpr(score, member, 0.01) == 0.0


@pytest.mark.parametrize("n", [1, 20, 99])
def test_fewer_non_members_than_the_rate_resolves_give_no_figure(n):
    """With 20 non-members the rates are 0, 5 %, 10 %, …: a curve's value at 1 % is its value at 0."""
    score, member = sets([1.0] * 10, [0.0] * n)
    fpr, tpr, _ = points_of(member, score)
    assert tpr[fpr <= 0.01].max() == 1.0
    assert tpr_at_fpr(score, member, 0.01) is None
    assert tpr_at_fpr(*sets([1.0] * 10, [0.0] * 100), 0.01) == 1.0


def logged(audited, scores_of, members, others, **options):
    """The metrics of a pass over texts of one token with these scores."""
    callback = MembershipInference({"loss": Loss()}, **options)
    member = [True] * len(members) + [False] * len(others)
    scores = scores_of([[s] for s in [*members, *others]], member=member)
    return audited(callback, (scores, {})).metrics


def test_a_rate_is_logged_under_the_rate_it_was_read_at(scores_of, audited):
    """detect-pretrain-code reads at 5 % and writes "TPR@0.1%FPR" into its file."""
    members, others = [-1.0] * 4, [-1.0] * 30 + [-2.0] * 970
    figures = logged(audited, scores_of, members, others, fprs=[0.001, 0.05])
    assert figures["mia/loss_tpr_at_fpr_0.001"] == 0.0
    assert figures["mia/loss_tpr_at_fpr_0.05"] == 1.0


def test_what_cannot_be_measured_is_not_logged(scores_of, audited):
    figures = logged(audited, scores_of, [-1.0] * 4, [-2.0] * 100, fprs=[0.001, 0.01])
    assert "mia/loss_tpr_at_fpr_0.001" not in figures
    assert figures["mia/loss_tpr_at_fpr_0.01"] == 1.0


def test_a_threshold_chosen_on_the_data_is_no_bound():
    """PrivacyGuard's ε is the best over thresholds, uncorrected: above 0 even for random scores.

    `mia/…_balanced_accuracy` is such a maximum too, as documented; it is logged beside the AUROC, never as a bound.
    """
    member = torch.arange(60) % 2 == 0
    areas, best = [], []
    for seed in range(40):
        score = torch.randn(60, generator=torch.Generator().manual_seed(seed))
        areas.append(auroc(score, member).value)
        best.append(best_balanced_accuracy(score, member))
    assert abs(sum(areas) / 40 - 0.5) < 0.03
    assert sum(best) / 40 > 0.55
    assert "optimistic" in best_balanced_accuracy.__doc__
