"""Spearman's rank correlation, against scipy and the formula."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from lit_mem.errors import MetricError
from lit_mem.functional.rank_correlation import spearman

TIED = st.integers(-3, 3).map(float)
REAL = st.floats(-1e9, 1e9)


def pairs(values, least=3):
    return st.lists(st.tuples(values, values), min_size=least, max_size=30)


def tensors(rows):
    return (torch.tensor([row[side] for row in rows], dtype=torch.float64) for side in (0, 1))


@given(pairs(TIED | REAL))
def test_it_is_scipys(rows):
    a, b = tensors(rows)
    if len(a.unique()) == 1 or len(b.unique()) == 1:
        assert spearman(a, b) is None
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-12)


@given(st.permutations(range(12)))
def test_without_ties_it_is_the_hand_formula(order):
    n = len(order)
    squares = sum((i - j) ** 2 for i, j in enumerate(order))
    value = spearman(torch.arange(n).double(), torch.tensor(order).double())
    assert value == pytest.approx(1 - 6 * squares / (n * (n * n - 1)), abs=1e-12)


@pytest.mark.slow
@given(pairs(TIED))
def test_it_is_symmetric_bounded_and_blind_to_scale(rows):
    a, b = tensors(rows)
    value = spearman(a, b)
    assert spearman(b, a) == value
    assert spearman(a.exp(), 7 * b - 3) == value
    if value is not None:
        assert -1 <= value <= 1
        assert spearman(-a, b) == -value
    if len(a.unique()) > 1:
        assert spearman(a, a**3) == 1.0


@pytest.mark.slow
@given(pairs(TIED), st.data())
def test_rows_that_are_not_finite_are_left_out(rows, data):
    a, b = tensors(rows)
    expected = spearman(a, b)
    for _ in range(3):
        at = data.draw(st.integers(0, len(a)))
        bad = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
        left, right = data.draw(st.sampled_from([(bad, 1.0), (1.0, bad), (bad, bad)]))
        a, b = (torch.cat([x[:at], torch.tensor([v]), x[at:]]) for x, v in ((a, left), (b, right)))
    assert spearman(a, b) == expected


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], []),
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0]),
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]),
        ([1.0, 2.0, 3.0, 9.0], [0.0, 0.0, 0.0, math.inf]),
    ],
)
def test_where_it_does_not_exist_it_is_none(a, b):
    assert spearman(torch.tensor(a), torch.tensor(b)) is None


def test_a_perfect_order_of_many_is_exactly_one():
    a = torch.rand(5000)
    assert spearman(a, a.double().exp()) == 1.0
    assert spearman(a, -a) == -1.0


@pytest.mark.parametrize("shape", [(4,), (3, 1)])
def test_other_shapes_are_rejected(shape):
    with pytest.raises(MetricError, match=r"two \(N,\) tensors"):
        spearman(torch.zeros(3), torch.zeros(shape))
