"""The ROC curve and its reading at low false-positive rates, against naive loops in exact fractions."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn import metrics

from lit_mem.errors import MetricError
from lit_mem.functional.roc import best_balanced_accuracy, roc_curve, tpr_at_fpr, tpr_interval

RATES = [Fraction(1, 1000), Fraction(1, 100), Fraction(1, 20), Fraction(1, 10), Fraction(1, 3), Fraction(7, 10)]


def naive_points(members, others):
    """(false-positive rate, true-positive rate) of "score >= threshold", from the strictest threshold on."""
    points = [(Fraction(0), Fraction(0))]
    for threshold in sorted({*members, *others}, reverse=True):
        false_positives = sum(s >= threshold for s in others)
        true_positives = sum(s >= threshold for s in members)
        points.append((Fraction(false_positives, len(others)), Fraction(true_positives, len(members))))
    return points


def naive_tpr(members, others, rate):
    if len(others) < 1 / rate:
        return None
    return float(max(tpr for fpr, tpr in naive_points(members, others) if fpr <= rate))


def tensors(members, others):
    score = torch.tensor([*members, *others], dtype=torch.float64)
    return score, torch.tensor([True] * len(members) + [False] * len(others))


scores = st.lists(st.integers(-3, 3).map(lambda x: 0.1 * x + 1e6), min_size=1, max_size=30)


@settings(deadline=None)
@given(scores, scores)
def test_curve_is_that_of_a_naive_loop_and_of_scikit_learn(members, others):
    score, member = tensors(members, others)
    fpr, tpr = roc_curve(score, member)
    points = naive_points(members, others)
    assert fpr.tolist() == pytest.approx([float(x) for x, _ in points], abs=1e-12)
    assert tpr.tolist() == pytest.approx([float(y) for _, y in points], abs=1e-12)
    expected_fpr, expected_tpr, _ = metrics.roc_curve(member, score, drop_intermediate=False)
    assert fpr.tolist() == expected_fpr.tolist()
    assert tpr.tolist() == expected_tpr.tolist()


@settings(deadline=None)
@given(scores, scores)
def test_curve_ascends_from_corner_to_corner(members, others):
    fpr, tpr = roc_curve(*tensors(members, others))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (fpr.diff() >= 0).all()
    assert (tpr.diff() >= 0).all()
    assert fpr.dtype == tpr.dtype == torch.float64


@settings(deadline=None)
@given(scores, scores, st.sampled_from(RATES))
def test_tpr_is_that_of_a_naive_loop_over_thresholds(members, others, rate):
    assert tpr_at_fpr(*tensors(members, others), float(rate)) == naive_tpr(members, others, rate)


@pytest.mark.parametrize(("rate", "enough"), [(0.01, 100), (0.001, 1000), (0.05, 20), (1 / 3, 3), (1 / 49, 49)])
def test_one_over_the_rate_non_members_are_just_enough(rate, enough):
    # One non-member outscores half of the members and none of the others: at this rate exactly one may.
    members, others = [3.0, 3.0, 1.0, 1.0], [2.0] + [0.0] * (enough - 1)
    assert tpr_at_fpr(*tensors(members, others), rate) == 1.0
    assert tpr_at_fpr(*tensors(members, [2.0, *others]), rate) == 0.5
    assert tpr_at_fpr(*tensors(members, others[:-1]), rate) is None


@pytest.mark.parametrize("n", [1, 10, 99])
def test_with_too_few_non_members_it_is_not_measurable_rather_than_zero(n):
    assert tpr_at_fpr(*tensors([1.0], [0.0] * n), 0.01) is None


def test_all_ties_have_no_threshold_between_them():
    assert tpr_at_fpr(*tensors([5.0] * 7, [5.0] * 200), 0.01) == 0.0


@pytest.mark.parametrize(
    ("score", "member"),
    [
        ([1.0, 2.0], [True, True]),
        ([1.0, 2.0], [False, False]),
        ([math.nan, 2.0], [True, False]),
        ([math.inf, 2.0], [True, False]),
        ([1.0, 2.0, 3.0], [True, False]),
    ],
)
@pytest.mark.parametrize("max_fpr", [0.01, 0.9])
def test_what_cannot_be_computed_is_an_error_however_many_non_members(score, member, max_fpr):
    with pytest.raises(MetricError):
        roc_curve(torch.tensor(score), torch.tensor(member))
    with pytest.raises(MetricError):
        tpr_at_fpr(torch.tensor(score), torch.tensor(member), max_fpr)
    with pytest.raises(MetricError):
        best_balanced_accuracy(torch.tensor(score), torch.tensor(member))


@pytest.mark.slow
@pytest.mark.exhaustive
@settings(deadline=None)
@given(scores, scores)
def test_best_balanced_accuracy_is_scikit_learns_at_the_best_of_all_thresholds(members, others):
    score, member = tensors(members, others)
    thresholds = [*score.tolist(), float(score.max()) + 1]
    each = [metrics.balanced_accuracy_score(member, score >= threshold) for threshold in thresholds]
    best = best_balanced_accuracy(score, member)
    assert best == pytest.approx(max(each), abs=1e-12)
    assert 0.5 <= best <= 1


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.5),  # reversed scores are not better than guessing
        ([5.0] * 3, [5.0] * 9, 0.5),
        ([4.0, 4.0, 0.0], [2.0] * 10, 0.5 + 1 / 3),
        ([4.0], [5.0, 3.0, 3.0, 3.0], 0.875),
    ],
)
def test_best_balanced_accuracy_by_hand(members, others, expected):
    assert best_balanced_accuracy(*tensors(members, others)) == pytest.approx(expected, abs=1e-12)


def test_best_balanced_accuracy_is_optimistic_where_there_is_nothing_to_find():
    """As the docstring warns: of equal distributions it is above one half by chance."""
    found = [best_balanced_accuracy(torch.randn(40), torch.arange(40) % 2 == 0) for _ in range(50)]
    assert sum(found) / 50 > 0.55


def naive_interval(members, others, rate, level):
    """The ends by trying every j, counting in loops, with SciPy's binomial distribution and exact intervals."""
    n, tail = len(others), (1 - level) / 2
    counts = [sum(other >= score for other in others) for score in members]

    def end(j, spent, which):
        if spent >= tail:
            return 0.0
        inner = 1 - 2 * (tail - spent) / (1 - spent)
        interval = binomtest(sum(count < j for count in counts), len(members)).proportion_ci(inner, method="exact")
        return getattr(interval, which)

    lower = [j for j in range(1, n + 1) if binom.cdf(j - 1, n, rate) <= 0.7 * tail]
    first = max(lower, default=1)
    last = next(j for j in range(1, n + 2) if binom.sf(j - 1, n, rate) <= 0.7 * tail)
    return end(first, binom.cdf(first - 1, n, rate), "low"), end(last, binom.sf(last - 1, n, rate), "high")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=30),
    st.lists(st.integers(0, 12), min_size=1, max_size=80),
    st.sampled_from([0.05, 0.1, 0.3]),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
def test_the_interval_of_a_tpr_is_that_of_a_naive_loop_around_it(members, others, rate, level):
    low, high = tpr_interval(*tensors(members, others), rate)(level)
    assert (low, high) == pytest.approx(naive_interval(members, others, rate, level), abs=1e-9)
    assert 0 <= low < high <= 1
    found = tpr_at_fpr(*tensors(members, others), rate)
    assert found is None or low <= found <= high


@pytest.mark.parametrize(("n", "known"), [(300, False), (367, False), (368, True), (2000, True)])
def test_with_few_non_members_no_threshold_is_known_to_keep_to_the_rate(n, known):
    score, member = tensors([2.0] * 50, [i / n for i in range(n)])
    low, high = tpr_interval(score, member, 0.01)(0.95)
    assert (low > 0, high) == (known, 1.0)
    assert tpr_interval(score, member, 0.01)(0.5)[0] > 0.9
