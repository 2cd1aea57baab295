"""Combined attacks against a reference regression on one half, and against chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lit_mem.errors import MetricError
from lit_mem.functional.auroc import auroc
from lit_mem.functional.combine import half_split_scores


def made_up(n=90, n_columns=3, signal=0.8, seed=0):
    """Columns of which the first separates members (a third of rows) by `signal` deviations, on different scales."""
    generator = torch.Generator().manual_seed(seed)
    member = torch.arange(n) % 3 == 0
    columns = {}
    for i in range(n_columns):
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        columns[f"attack{i}"] = (noise + signal * member * (i == 0)) * 10.0 ** (i - 1) - 50 * i
    return columns, member


def combine(columns, member, seed=0):
    return half_split_scores(columns, member, torch.arange(len(member)), seed=seed)


def fitted(x, y):
    """Weights and intercept that minimise the sum of log-losses and half the squared weights."""

    def loss(parameters):
        margin = np.where(y, 1, -1) * (x @ parameters[:-1] + parameters[-1])
        return np.logaddexp(0, -margin).sum() + parameters[:-1] @ parameters[:-1] / 2

    return minimize(loss, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-7}).x


def halves(member, score):
    """The half of the fit, and the evaluated half."""
    judged = ~torch.isnan(score)
    return ~judged, judged


@pytest.mark.parametrize(("n", "seed"), [(90, 0), (90, 3), (91, 0)])
def test_one_half_is_judged_by_a_fit_on_the_other_alone(n, seed):
    """Scaling and regression by hand, from the rows of the fit only."""
    columns, member = made_up(n)
    score = combine(columns, member, seed=seed)
    assert score.dtype == torch.float64
    fit, judged = halves(member, score)
    assert int((fit & member).sum()) == int(member.sum()) // 2
    assert int((fit & ~member).sum()) == int((~member).sum()) // 2
    x, y = torch.stack([columns[name] for name in sorted(columns)], dim=1).numpy(), member.numpy()
    mean, std = x[fit].mean(0), x[fit].std(0)
    parameters = fitted((x[fit] - mean) / std, y[fit])
    expected = torch.from_numpy((x[judged] - mean) / std @ parameters[:-1] + parameters[-1])
    torch.testing.assert_close(score[judged], expected, rtol=0, atol=1e-4)


def test_it_is_scikit_learns_regression():
    columns, member = made_up(seed=1)
    score = combine(columns, member)
    fit, judged = halves(member, score)
    x = torch.stack([columns[name] for name in sorted(columns)], dim=1).numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=1000)).fit(x[fit], member[fit])
    torch.testing.assert_close(score[judged], torch.from_numpy(model.decision_function(x[judged])), rtol=0, atol=1e-5)


def test_the_halves_are_dealt_by_example_and_not_by_what_is_known_of_it():
    """By id and membership only: other scores are evaluated on the same examples, other ids on others."""
    columns, member = made_up()
    ids = torch.arange(len(member)) * 7 + 3
    score = half_split_scores(columns, member, ids)
    others, _ = made_up(seed=5)
    assert torch.equal(half_split_scores(others, member, ids).isnan(), score.isnan())
    assert not torch.equal(half_split_scores(columns, member, ids + 1).isnan(), score.isnan())
    # The split is well mixed: the 30 of 60 non-members in the fit are neither a block nor every second one.
    fit = score[~member].isnan()
    assert 15 <= int((fit[1:] != fit[:-1]).sum()) <= 45
    assert 5 <= int(fit[::2].sum()) <= 25


def null_areas(n, n_columns, trials):
    """AUROCs with intervals of `combined` on n members and n others without signal, with correlated columns."""
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(2 * n) < n
    areas = []
    for _ in range(trials):
        shared, *own = torch.randn(n_columns + 1, 2 * n, generator=generator, dtype=torch.float64)
        score = combine({str(i): shared + noise for i, noise in enumerate(own)}, member)
        _, judged = halves(member, score)
        areas.append(auroc(score[judged], member[judged]))
    return areas


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("n", "n_columns"), [(30, 2), (30, 7), (300, 7)])
def test_columns_of_noise_are_guessing_on_average_and_the_interval_says_so(n, n_columns):
    trials = 600
    areas = null_areas(n, n_columns, trials)
    # An AUROC of n / 2 against n / 2 has a variance of (n + 1) / (3 n²) there.
    deviation = np.sqrt((n + 1) / (3 * n**2) / trials)
    assert abs(np.mean([area.value for area in areas]) - 0.5) < 3.5 * deviation
    assert np.mean([area.low <= 0.5 <= area.high for area in areas]) > 0.92


@pytest.mark.slow
def test_noise_has_no_information_although_a_fit_to_it_seems_to():
    """Twelve noise columns for 60 rows: in-sample the members are separated, on the other half they are not."""
    honest, leaky = [], []
    for seed in range(40):
        columns, member = made_up(n=60, n_columns=12, signal=0.0, seed=seed)
        score = combine(columns, member, seed=seed)
        fit, judged = halves(member, score)
        honest.append(roc_auc_score(member[judged], score[judged]))
        x = torch.stack(list(columns.values()), dim=1).numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[fit], member[fit])
        leaky.append(roc_auc_score(member[fit], model.decision_function(x[fit])))
    assert np.mean(leaky) > 0.75
    # Each AUROC of 10 members and 20 others has a deviation of 0.113 by chance, their mean one of 0.018.
    assert abs(np.mean(honest) - 0.5) < 4 * 0.113 / np.sqrt(40)


def test_two_weak_attacks_combine_to_a_better_one():
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(600) % 2 == 0
    shared, own = torch.randn(2, 600, generator=generator, dtype=torch.float64)
    # The second column is informative only through the first one's noise.
    columns = {"signal": 0.5 * member + shared, "difficulty": shared + 0.2 * own}
    single = max(roc_auc_score(member, column) for column in columns.values())
    score = combine(columns, member)
    _, judged = halves(member, score)
    assert roc_auc_score(member[judged], score[judged]) > single + 0.2


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_rows_and_columns_does_not_matter(random, seed):
    columns, member = made_up(n=40, seed=seed)
    score, ids = combine(columns, member, seed=seed), torch.arange(40)
    rows, names = list(range(40)), list(columns)
    random.shuffle(rows)
    random.shuffle(names)
    shuffled = half_split_scores({name: columns[name][rows] for name in names}, member[rows], ids[rows], seed=seed)
    assert torch.equal(shuffled.nan_to_num(nan=99), score[rows].nan_to_num(nan=99))


def test_the_seed_deals_the_halves():
    columns, member = made_up()
    first = combine(columns, member, seed=0)
    assert torch.equal(first.nan_to_num(nan=99), combine(columns, member, seed=0).nan_to_num(nan=99))
    assert not torch.equal(first.isnan(), combine(columns, member, seed=1).isnan())


def test_scale_and_shift_of_a_column_do_not_matter():
    columns, member = made_up()
    moved = columns | {"attack0": columns["attack0"] * 1024 - 64.0}
    expected = combine(columns, member)
    torch.testing.assert_close(combine(moved, member), expected, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("value", [0.0, 7.3, -1e300])
def test_a_constant_column_changes_nothing(value):
    columns, member = made_up()
    more = columns | {"constant": torch.full((len(member),), value, dtype=torch.float64)}
    expected = combine(columns, member)
    torch.testing.assert_close(combine(more, member), expected, rtol=0, atol=1e-9, equal_nan=True)


def test_nothing_but_constants_is_even_odds_for_all():
    member = torch.arange(40) % 2 == 0
    score = combine({"zero": torch.zeros(40), "one": torch.ones(40)}, member)
    _, judged = halves(member, score)
    torch.testing.assert_close(score[judged], torch.zeros(20, dtype=torch.float64), rtol=0, atol=1e-9)


def heavy_tailed(kind, n=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    member = torch.arange(n) % 2 == 0
    if kind == "cauchy to the fifth":
        x = (x / torch.randn(n, generator=generator, dtype=torch.float64)) ** 5
    elif kind == "one outlier":
        x[3] = -1e300
    elif kind == "two at the ends of float64":
        x[3], x[4] = 1.7e308, -1.7e308
    elif kind == "subnormal":
        x = x * 1e-310
    elif kind == "separable":
        x = 1000.0 * member + 0.01 * x
    elif kind == "all but one equal":
        x = torch.zeros(n, dtype=torch.float64)
        x[7] = 1.0
    return x, member


@pytest.mark.parametrize(
    "kind",
    [
        "cauchy to the fifth",
        "one outlier",
        "two at the ends of float64",
        "subnormal",
        "separable",
        "all but one equal",
    ],
)
def test_tails_do_not_break_it(kind):
    """Warnings are errors here, so overflow and lack of convergence would show."""
    x, member = heavy_tailed(kind)
    other = torch.randn(len(x), generator=torch.Generator().manual_seed(1))
    score = combine({"tails": x, "again": x / 2, "other": other}, member)
    _, judged = halves(member, score)
    assert int(judged.sum()) == 30
    assert torch.isfinite(score[judged]).all()
    if kind == "separable":
        assert roc_auc_score(member[judged], score[judged]) == 1.0


def test_columns_of_other_types_are_read():
    columns, member = made_up()
    rounded = {name: column.float() for name, column in columns.items()}
    expected = combine({name: column.double() for name, column in rounded.items()}, member)
    assert torch.equal(combine(rounded, member).nan_to_num(nan=99), expected.nan_to_num(nan=99))


@pytest.mark.parametrize(("n_members", "n_others"), [(3, 20), (20, 3), (0, 20), (20, 0), (0, 0)])
def test_with_fewer_examples_than_two_in_each_half_it_says_what_to_do(n_members, n_others):
    member = torch.tensor([True] * n_members + [False] * n_others, dtype=torch.bool)
    with pytest.raises(MetricError, match=f"needs 4 .* found {n_members} and {n_others}: validate more examples"):
        combine({"a": torch.randn(len(member))}, member)


def test_four_of_each_are_enough():
    member = torch.tensor([True] * 4 + [False] * 9)
    score = combine({"a": torch.randn(13)}, member)
    assert (int(score[:4].isnan().sum()), int(score[4:].isnan().sum())) == (2, 4)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no attack scores"),
        ({"a": torch.zeros(19)}, r"scores of 'a' are \(19,\), member is \(20,\)"),
        ({"a": torch.zeros(20, 1)}, r"scores of 'a' are \(20, 1\)"),
        ({"a": torch.zeros(20), "b": torch.tensor([0.0] * 19 + [torch.nan])}, "1 of 20 scores of 'b'"),
        ({"a": torch.tensor([0.0] * 19 + [torch.inf])}, "1 of 20 scores of 'a'"),
    ],
)
def test_what_cannot_be_combined_is_an_error(columns, message):
    with pytest.raises(MetricError, match=message):
        combine(columns, torch.arange(20) % 2 == 0)
    with pytest.raises(MetricError, match=r"example_id is \(19,\)"):
        half_split_scores({"a": torch.zeros(20)}, torch.arange(20) % 2 == 0, torch.arange(19))
