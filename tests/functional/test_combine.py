"""Combined attacks against a loop over the folds with a regression of our own, and against chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lit_mem.errors import MetricError
from lit_mem.functional.combine import cross_validated_scores


def made_up(n=90, n_columns=3, signal=0.8, seed=0):
    """Columns of which the first tells members (a third of the rows) by `signal` deviations, on unlike scales."""
    generator = torch.Generator().manual_seed(seed)
    member = torch.arange(n) % 3 == 0
    columns = {}
    for i in range(n_columns):
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        columns[f"attack{i}"] = (noise + signal * member * (i == 0)) * 10.0 ** (i - 1) - 50 * i
    return columns, member


def sorted_rows(columns, member):
    """(N, K) scores and (N,) labels as the function deals them out, and where each row came from."""
    names = sorted(columns)
    keys = [[*(columns[name][i].item() for name in names), bool(member[i])] for i in range(len(member))]
    order = sorted(range(len(member)), key=lambda i: keys[i])
    return np.array([keys[i][:-1] for i in order]), np.array([keys[i][-1] for i in order]), order


def fitted(x, y):
    """Weights and intercept that minimise the sum of log-losses and half the squared weights."""

    def loss(parameters):
        margin = np.where(y, 1, -1) * (x @ parameters[:-1] + parameters[-1])
        return np.logaddexp(0, -margin).sum() + parameters[:-1] @ parameters[:-1] / 2

    return minimize(loss, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-7}).x


@pytest.mark.parametrize("folds", [2, 5])
def test_each_fold_is_judged_by_a_fit_on_the_others_alone(folds):
    """Scaling and regression by hand, both from the training rows of the fold only."""
    columns, member = made_up()
    x, y, order = sorted_rows(columns, member)
    expected = torch.zeros(len(member), dtype=torch.float64)
    for fit, out in StratifiedKFold(folds, shuffle=True, random_state=3).split(x, y):
        mean, std = x[fit].mean(0), x[fit].std(0)
        parameters = fitted((x[fit] - mean) / std, y[fit])
        expected[[order[i] for i in out]] = torch.from_numpy((x[out] - mean) / std @ parameters[:-1] + parameters[-1])
    score = cross_validated_scores(columns, member, folds=folds, seed=3)
    assert score.dtype == torch.float64
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-4)


def test_it_is_scikit_learns_cross_val_predict():
    columns, member = made_up(seed=1)
    x, y, order = sorted_rows(columns, member)
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = torch.zeros(len(member), dtype=torch.float64)
    expected[order] = torch.from_numpy(cross_val_predict(model, x, y, cv=folds, method="decision_function"))
    torch.testing.assert_close(cross_validated_scores(columns, member), expected, rtol=0, atol=1e-5)


def test_noise_tells_nothing_though_a_fit_to_it_seems_to():
    """Twelve columns of noise for 60 rows: judged by a fit to themselves members stand out, out of fold they do not."""
    honest, leaky = [], []
    for seed in range(40):
        columns, member = made_up(n=60, n_columns=12, signal=0.0, seed=seed)
        honest.append(roc_auc_score(member, cross_validated_scores(columns, member, seed=seed)))
        x = torch.stack(list(columns.values()), dim=1).numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, member.numpy())
        leaky.append(roc_auc_score(member, model.decision_function(x)))
    assert np.mean(leaky) > 0.75
    # Each AUROC of 20 members and 40 others has a deviation of 0.08 by chance, their mean one of 0.013.
    assert abs(np.mean(honest) - 0.5) < 4 * 0.08 / np.sqrt(40)


def test_two_weak_attacks_combine_to_a_better_one():
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(600) % 2 == 0
    shared, own = torch.randn(2, 600, generator=generator, dtype=torch.float64)
    # The second column tells of members only by what it says of the first one's noise.
    columns = {"signal": 0.5 * member + shared, "difficulty": shared + 0.2 * own}
    single = max(roc_auc_score(member, column) for column in columns.values())
    assert roc_auc_score(member, cross_validated_scores(columns, member)) > single + 0.2


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_rows_and_columns_does_not_matter(random, seed):
    columns, member = made_up(n=40, seed=seed)
    score = cross_validated_scores(columns, member, seed=seed)
    rows, names = list(range(40)), list(columns)
    random.shuffle(rows)
    random.shuffle(names)
    shuffled = cross_validated_scores({name: columns[name][rows] for name in names}, member[rows], seed=seed)
    assert torch.equal(shuffled, score[rows])


def test_the_seed_deals_the_folds():
    columns, member = made_up()
    first = cross_validated_scores(columns, member, seed=0)
    assert torch.equal(first, cross_validated_scores(columns, member, seed=0))
    assert not torch.equal(first, cross_validated_scores(columns, member, seed=1))


def test_scale_and_shift_of_a_column_do_not_matter():
    columns, member = made_up()
    moved = columns | {"attack0": columns["attack0"] * 1024 - 64.0}
    expected = cross_validated_scores(columns, member)
    torch.testing.assert_close(cross_validated_scores(moved, member), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 7.3, -1e300])
def test_a_constant_column_changes_nothing(value):
    columns, member = made_up()
    more = columns | {"constant": torch.full((len(member),), value, dtype=torch.float64)}
    expected = cross_validated_scores(columns, member)
    torch.testing.assert_close(cross_validated_scores(more, member), expected, rtol=0, atol=1e-9)


def test_nothing_but_constants_is_even_odds_for_all():
    member = torch.arange(40) % 2 == 0
    score = cross_validated_scores({"zero": torch.zeros(40), "one": torch.ones(40)}, member)
    torch.testing.assert_close(score, torch.zeros(40, dtype=torch.float64), rtol=0, atol=1e-9)


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
    score = cross_validated_scores({"tails": x, "again": x / 2, "other": other}, member)
    assert torch.isfinite(score).all()
    if kind == "separable":
        assert roc_auc_score(member, score) == 1.0


def test_columns_of_other_types_are_read():
    columns, member = made_up()
    rounded = {name: column.float() for name, column in columns.items()}
    expected = cross_validated_scores({name: column.double() for name, column in rounded.items()}, member)
    assert torch.equal(cross_validated_scores(rounded, member), expected)


@pytest.mark.parametrize(("n_members", "n_others"), [(4, 20), (20, 4), (0, 20), (20, 0), (0, 0)])
def test_with_fewer_examples_in_a_set_than_folds_it_says_what_to_do(n_members, n_others):
    member = torch.tensor([True] * n_members + [False] * n_others, dtype=torch.bool)
    with pytest.raises(MetricError, match=f"there are {n_members} and {n_others}; validate more .* or use fewer folds"):
        cross_validated_scores({"a": torch.randn(len(member))}, member)


def test_as_many_examples_as_folds_are_enough():
    member = torch.tensor([True] * 5 + [False] * 9)
    assert torch.isfinite(cross_validated_scores({"a": torch.randn(14)}, member)).all()


@pytest.mark.parametrize(
    ("columns", "folds", "message"),
    [
        ({}, 5, "no attack scores"),
        ({"a": torch.zeros(19)}, 5, r"scores of 'a' are \(19,\), member is \(20,\)"),
        ({"a": torch.zeros(20, 1)}, 5, r"scores of 'a' are \(20, 1\)"),
        ({"a": torch.zeros(20), "b": torch.tensor([0.0] * 19 + [torch.nan])}, 5, "1 of 20 scores of 'b'"),
        ({"a": torch.tensor([0.0] * 19 + [torch.inf])}, 5, "1 of 20 scores of 'a'"),
        ({"a": torch.zeros(20)}, 1, "in 1 folds; expected at least 2"),
    ],
)
def test_what_cannot_be_combined_is_an_error(columns, folds, message):
    with pytest.raises(MetricError, match=message):
        cross_validated_scores(columns, torch.arange(20) % 2 == 0, folds=folds)
