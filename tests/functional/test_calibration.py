"""The residual of one score over another: against numpy's fit, and if the predictor explains nothing or everything."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lit_mem.errors import MetricError
from lit_mem.functional.calibration import residual

FAST = settings(deadline=None, max_examples=3 * settings.default.max_examples // 5)
NUMBERS = st.floats(-50, 0, allow_nan=False)


@FAST
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=30))
def test_it_is_that_of_a_fitted_line(pairs):
    y, x = np.array(pairs).T
    if np.ptp(x) < 1e-3:
        return
    slope, start = np.polyfit(x, y, 1)
    found = residual(torch.tensor(y), torch.tensor(x))
    assert found.numpy() == pytest.approx(y - slope * x - start, abs=1e-6 * (1 + abs(slope)))


@FAST
@given(st.lists(NUMBERS, min_size=1, max_size=300))
@example([0.0, -2.2e-309])  # its square is 0
def test_what_is_the_same_leaves_exactly_nothing(values):
    score = torch.tensor(values, dtype=torch.float64)
    assert torch.equal(residual(score, score.clone()), torch.zeros_like(score))


def test_what_is_unrelated_takes_nothing_away():
    score, other = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert residual(score, other).tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert residual(score, torch.full((4,), -7.0)).tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_no_examples_have_no_residual():
    assert residual(torch.empty(0), torch.empty(0)).shape == (0,)


@pytest.mark.parametrize(
    ("score", "predictor", "message"),
    [
        ([1.0], [1.0, 2.0], r"\(1,\) and \(2,\)"),
        ([1.0, float("nan")], [1.0, 2.0], "not"),
        ([1.0], [float("inf")], "not"),
    ],
)
def test_what_cannot_be_compared_is_an_error(score, predictor, message):
    with pytest.raises(MetricError, match=message):
        residual(torch.tensor(score), torch.tensor(predictor))
