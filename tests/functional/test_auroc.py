"""AUROC and DeLong's interval against scikit-learn, a double loop, and simulated coverage."""

import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC

from lit_mem.errors import MetricError
from lit_mem.functional.auroc import auroc

MEMBER, OTHER = True, False


@st.composite
def scored(draw, min_size=1):
    """Scores with many ties, on any scale; powers of two and whole numbers, so that ties survive the scale."""
    values = st.lists(st.integers(-4, 4), min_size=min_size, max_size=25)
    members, others = draw(values), draw(values)
    scale = draw(st.sampled_from([2.0**-20, 1.0, 2.0**20]))
    shift = draw(st.sampled_from([0.0, 1e6, -1e6]))
    score = torch.tensor([*members, *others], dtype=torch.float64) * scale + shift
    member = torch.tensor([MEMBER] * len(members) + [OTHER] * len(others))
    order = draw(st.permutations(range(len(score))))
    return score[list(order)], member[list(order)]


def delong_by_hand(score, member, level):
    """DeLong et al. 1988, equations 3 to 6, pair by pair."""
    members, others = score[member].tolist(), score[~member].tolist()
    psi = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in others] for x in members])
    variance = psi.mean(axis=1).var(ddof=1) / len(members) + psi.mean(axis=0).var(ddof=1) / len(others)
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * variance**0.5
    return psi.mean(), max(0.0, psi.mean() - half), min(1.0, psi.mean() + half)


@settings(deadline=None)
@given(scored())
def test_value_is_that_of_scikit_learn(data):
    score, member = data
    assert auroc(score, member).value == pytest.approx(roc_auc_score(member, score), abs=1e-12)


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=30),
    st.integers(0, 2**30),
)
def test_value_is_that_of_scikit_learn_for_any_finite_scores(values, bits):
    score = torch.tensor(values, dtype=torch.float64)
    member = torch.tensor([bool(bits >> i & 1) for i in range(len(values))])
    member[0], member[1] = MEMBER, OTHER
    assert auroc(score, member).value == pytest.approx(roc_auc_score(member, score), abs=1e-12)


@settings(deadline=None)
@given(scored(min_size=2), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_is_that_of_a_double_loop(data, level):
    assert tuple(auroc(*data, level=level)) == pytest.approx(delong_by_hand(*data, level), abs=1e-9)


@pytest.mark.parametrize(("n_members", "n_others"), [(50, 50), (30, 120)])
def test_interval_covers_the_true_area(n_members, n_others):
    generator = torch.Generator().manual_seed(0)
    truth = statistics.NormalDist().cdf(1 / 2**0.5)  # two normal scores of deviation 1, means 1 apart
    member = torch.arange(n_members + n_others) < n_members
    trials = 400
    covered = 0
    for _ in range(trials):
        score = torch.randn(len(member), generator=generator, dtype=torch.float64) + member.double()
        area = auroc(score, member)
        covered += area.low <= truth <= area.high
    assert 0.9 < covered / trials < 0.99


def test_large_scores_do_not_saturate():
    score, member = torch.tensor([30.0, 25.0, 20.0, 19.0]), torch.tensor([1, 1, 0, 0])
    assert auroc(score, member).value == 1.0
    # Why torchmetrics' is not used: it squashes scores outside [0, 1] through a sigmoid, so that these tie.
    assert BinaryAUROC()(score, member).item() == 0.5


@settings(deadline=None)
@given(scored())
def test_strictly_increasing_maps_change_nothing(data):
    score, member = data
    # Ranks stand in for any increasing map, so the map itself cannot round two scores together.
    ranks = torch.tensor([sorted(set(score.tolist())).index(s) for s in score.tolist()], dtype=torch.float64)
    for mapped in (ranks, ranks**3 - 1e6, ranks.exp(), -1 / (1 + ranks)):
        assert auroc(mapped, member) == auroc(score, member)


@settings(deadline=None)
@given(scored())
def test_negated_scores_and_swapped_sets_mirror(data):
    score, member = data
    area = auroc(score, member)
    mirrored = (1 - area.value, 1 - area.high, 1 - area.low)
    assert tuple(auroc(-score, member)) == pytest.approx(mirrored, abs=1e-12)
    assert tuple(auroc(score, ~member)) == pytest.approx(mirrored, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, -310.25, 1e300])
def test_all_ties_are_exactly_one_half(constant):
    member = torch.tensor([True, False, True, False, False])
    assert auroc(torch.full((5,), constant, dtype=torch.float64), member) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("member", [[True, False, False, False], [True, True, True, False]])
def test_one_example_in_a_set_gives_no_variance(member):
    area = auroc(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor(member))
    assert area == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64])
def test_any_dtype_of_score(dtype):
    assert auroc(torch.tensor([3, 1, 2], dtype=dtype), torch.tensor([1, 0, 0])).value == 1.0


@pytest.mark.parametrize(
    ("score", "member", "message"),
    [
        ([1.0, 2.0], [True, True], "2 members, 0 non-members"),
        ([1.0, 2.0], [False, False], "0 members, 2 non-members"),
        ([], [], "0 members, 0 non-members"),
        ([1.0, float("nan"), float("nan")], [True, True, False], "2 of 3 attack scores are not finite"),
        ([1.0, float("inf")], [True, False], "1 of 2 attack scores"),
        ([1.0, -float("inf")], [True, False], "1 of 2 attack scores"),
        ([1.0, 2.0, 3.0], [True, False], r"score \(3,\), member \(2,\)"),
        ([[1.0, 2.0]], [[True, False]], r"score \(1, 2\)"),
    ],
)
def test_what_cannot_be_computed_is_an_error(score, member, message):
    with pytest.raises(MetricError, match=message):
        auroc(torch.tensor(score), torch.tensor(member, dtype=torch.bool))
