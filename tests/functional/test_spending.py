"""Error probabilities spread over looks, and intervals at other levels, against sums and DeLong's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.errors import ConfigError
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.spending import Spending, rescaled


@given(st.floats(0.001, 0.5), st.integers(1, 60))
def test_planned_looks_get_equal_shares_and_no_more_than_there_is(alpha, planned):
    spending = Spending(alpha)
    shares = [spending.spend(planned) for _ in range(planned)]
    assert shares == pytest.approx([alpha / planned] * planned)
    assert sum(shares) <= alpha * (1 + 1e-12)
    assert spending.next(planned) == pytest.approx(0, abs=1e-15)  # beyond the plan


@given(st.floats(0.001, 0.5), st.integers(1, 200))
def test_of_unplanned_looks_any_number_gets_no_more_than_there_is(alpha, looks):
    spending = Spending(alpha)
    shares = [spending.spend() for _ in range(looks)]
    assert shares == pytest.approx([alpha / (k * (k + 1)) for k in range(1, looks + 1)])
    assert sum(shares) == pytest.approx(alpha * (1 - 1 / (looks + 1)))


@given(st.lists(st.one_of(st.none(), st.integers(1, 30)), min_size=1, max_size=40))
def test_a_plan_that_changes_spends_no_more(plans):
    """A resumed run with more epochs, or fewer, than planned."""
    spending = Spending()
    assert sum(spending.spend(planned) for planned in plans) <= 0.05 * (1 + 1e-9)
    assert spending.looks == len(plans)


@pytest.mark.parametrize("alpha", [0, 1, float("nan")])
def test_an_alpha_out_of_range_is_one_line(alpha):
    with pytest.raises(ConfigError, match="alpha is "):
        Spending(alpha)


def test_rescaling_is_exact_for_delongs_interval():
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(80) < 40
    value, interval = auroc_interval(torch.randn(80, generator=generator) + member, member)
    for level in (0.8, 0.99, 0.9999):
        assert rescaled(value, interval(0.95), level) == pytest.approx(interval(level), abs=1e-12)


def test_rescaling_elsewhere():
    assert rescaled(3.0, (2.0, 5.0), 0.95) == (2.0, 5.0)
    low, high = rescaled(3.0, (2.0, 5.0), 0.99)
    assert 3 - low == pytest.approx(2.5758293 / 1.9599640)
    assert high - 3 == pytest.approx(2 * (3 - low))
    assert rescaled(0.0, (0.0, 0.2), 0.99)[0] == 0
