"""AUROC and its interval against scikit-learn and plain loops; its simulated coverage is in test_auroc_coverage.py."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
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


def wilson_by_hand(share, n, level):
    """The two p with (share − p)² = z² p (1 − p) / n, of which 0 and 1 are exact at the ends."""
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    a, b, c = 1 + z * z / n, -(2 * share + z * z / n), share**2
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def interval_by_hand(score, member, level):
    """DeLong et al. 1988, equations 3 to 6, pair by pair; one more observation a set; the logit by its derivative."""
    members, others = score[member].tolist(), score[~member].tolist()
    psi = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in others] for x in members])
    area, (m, n) = psi.mean(), psi.shape
    if psi.min() == psi.max() or (psi.mean(axis=1).var() < 1e-20 and psi.mean(axis=0).var() < 1e-20):
        return area, *wilson_by_hand(area, min(m, n), level)
    # The observation more lies at a distance of sqrt(A (1 − A)) from the mean, which is not moved.
    variance = 0.0
    for placed in (psi.mean(axis=1), psi.mean(axis=0)):
        squares = [*((placed - area) ** 2), area * (1 - area)]
        variance += sum(squares) / (len(squares) - 1) / len(placed)
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    odds = area / (1 - area)
    low, high = odds * math.exp(-half), odds * math.exp(half)
    return area, low / (1 + low), high / (1 + high)


@settings(deadline=None)
@given(scored())
def test_value_is_that_of_scikit_learn(data):
    score, member = data
    assert auroc(score, member).value == pytest.approx(roc_auc_score(member, score), abs=1e-12)


@pytest.mark.slow
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
    assert tuple(auroc(*data, level=level)) == pytest.approx(interval_by_hand(*data, level), abs=1e-9)


@pytest.mark.slow
@settings(deadline=None)
@given(scored(min_size=2))
def test_a_higher_level_gives_a_wider_interval_around_the_value(data):
    areas = [auroc(*data, level=level) for level in (0.5, 0.9, 0.95, 0.999)]
    for area, wider in itertools.pairwise(areas):
        assert 0 <= wider.low <= area.low <= area.value <= area.high <= wider.high <= 1
        assert wider.low < area.low or wider.high > area.high


@pytest.mark.parametrize(("n_members", "n_others"), [(3, 3), (30, 30), (30, 200), (200, 30)])
@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_separation_is_as_sure_as_the_smaller_set_is_large(n_members, n_others, sign):
    member = torch.arange(n_members + n_others) < n_members
    area = auroc(sign * member.double(), member)
    few = binomtest(min(n_members, n_others), min(n_members, n_others)).proportion_ci(0.95, method="wilson").low
    assert tuple(area) == pytest.approx((1.0, few, 1.0) if sign > 0 else (0.0, 0.0, 1 - few), abs=1e-12)


def test_a_value_by_hand():
    # 3 members and 2 others, one pair of six the wrong way round: A = 5/6, A (1 − A) = 5/36. Placements of the members
    # 1, 1, 1/2 with squares 1/36, 1/36, 1/9; of the others 1, 2/3 with 1/36, 1/36; one more of 5/36 in each.
    variance = (1 / 36 + 1 / 36 + 4 / 36 + 5 / 36) / 3 / 3 + (1 / 36 + 1 / 36 + 5 / 36) / 2 / 2
    half = 1.959963984540054 * math.sqrt(variance) / (5 / 36)
    area = auroc(torch.tensor([3.0, 4.0, 1.0, 0.0, 2.0]), torch.tensor([1, 1, 1, 0, 0]))
    expected = [5 / 6, *(1 / (1 + math.exp(-(math.log(5) + end))) for end in (-half, half))]
    assert tuple(area) == pytest.approx(expected, abs=1e-12)
    assert variance == pytest.approx(11 / 324 + 7 / 144)


def clustered_by_hand(score, member, cluster, level=0.95):
    """Obuchowski 1997, equations 4 to 6, cluster by cluster, with the logit and the observation more."""
    rows = list(zip(score.tolist(), member.tolist(), cluster.tolist(), strict=True))
    xs, ys = [(s, c) for s, m, c in rows if m], [(s, c) for s, m, c in rows if not m]

    def beats(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    area = sum(beats(x, y) for x, _ in xs for y, _ in ys) / len(xs) / len(ys)
    sides, variance = {}, 0.0
    for name, mine, others, above in (("x", xs, ys, beats), ("y", ys, xs, lambda y, x: beats(x, y))):
        sums, sizes = {}, {}
        for s, c in mine:
            sums[c] = sums.get(c, 0.0) + sum(above(s, o) for o, _ in others) / len(others) - area
            sizes[c] = sizes.get(c, 0) + 1
        k, units = len(sums), len(mine) ** 2 / sum(size**2 for size in sizes.values())
        part = k / (k - 1) * sum(total**2 for total in sums.values()) / len(mine) ** 2
        variance += ((units - 1) * part + area * (1 - area) / units) / units
        sides[name] = sums
    total = len(set(sides["x"]) | set(sides["y"]))
    both = sum(sides["x"][c] * sides["y"][c] for c in sides["x"] if c in sides["y"])
    variance += 2 * total / (total - 1) * both / len(xs) / len(ys)
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    odds = area / (1 - area)
    return area, *(odds * math.exp(end) / (1 + odds * math.exp(end)) for end in (-half, half))


@pytest.mark.parametrize("across", [False, True])
def test_clusters_are_those_of_a_plain_loop(across):
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(60) < 25
    of_cluster = torch.randn(12, generator=generator)
    cluster = torch.arange(60) * 7 % 12 if across else torch.arange(60) // 5
    score = (of_cluster[cluster] + torch.randn(60, generator=generator) + 0.5 * member).round(decimals=1)
    area = auroc(score, member, cluster=cluster + 100)
    assert tuple(area) == pytest.approx(clustered_by_hand(score, member, cluster), abs=1e-9)
    if not across:
        assert area.high - area.low > 1.2 * (auroc(score, member).high - auroc(score, member).low)


@pytest.mark.slow
@settings(deadline=None)
@given(scored(min_size=2))
def test_rows_that_are_clusters_of_their_own_change_nothing_and_copies_do_not_narrow(data):
    score, member = data
    once = auroc(score, member)
    number = torch.arange(len(score))
    assert tuple(auroc(score, member, cluster=number)) == pytest.approx(tuple(once), abs=1e-9)
    copies = auroc(score.repeat(3), member.repeat(3), cluster=number.repeat(3))
    assert tuple(copies) == pytest.approx(tuple(once), abs=1e-9)


def test_one_cluster_in_a_set_gives_no_variance():
    score, member = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5]), torch.tensor([1, 1, 0, 0, 0])
    assert auroc(score, member, cluster=torch.tensor([0, 0, 1, 2, 3])) == (1.0, 0.0, 1.0)
    with pytest.raises(MetricError, match=r"member \(5,\), cluster \(4,\)"):
        auroc(score, member, cluster=torch.arange(4))


def test_large_scores_do_not_saturate():
    score, member = torch.tensor([30.0, 25.0, 20.0, 19.0]), torch.tensor([1, 1, 0, 0])
    assert auroc(score, member).value == 1.0
    # Why torchmetrics' is not used: it squashes scores outside [0, 1] through a sigmoid, so that these tie.
    assert BinaryAUROC()(score, member).item() == 0.5


@pytest.mark.slow
@settings(deadline=None)
@given(scored())
def test_strictly_increasing_maps_change_nothing(data):
    score, member = data
    # Ranks represent any increasing map, so the map itself cannot round two scores together.
    ranks = torch.tensor([sorted(set(score.tolist())).index(s) for s in score.tolist()], dtype=torch.float64)
    for mapped in (ranks, ranks**3 - 1e6, ranks.exp(), -1 / (1 + ranks)):
        assert auroc(mapped, member) == auroc(score, member)


@pytest.mark.slow
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
    # An interval of width 0 would be certainty; what is known is what 2 tosses of a coin are.
    low, high = wilson_by_hand(0.5, 2, 0.95)
    area = auroc(torch.full((5,), constant, dtype=torch.float64), member)
    assert area.value == 0.5
    assert tuple(area) == pytest.approx((0.5, low, high), abs=1e-12)


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
        ([1.0, 2.0], [True, True], "2 members and 0 non-members"),
        ([1.0, 2.0], [False, False], "0 members and 2 non-members"),
        ([], [], "0 members and 0 non-members"),
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
