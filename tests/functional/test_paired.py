"""The standard error of a change of loss, against its closed form, scipy, and repeated draws."""

import math

import pytest
import torch
from scipy import stats

from lit_mem.functional.paired import Change, change_of_gap, change_of_loss


def test_texts_of_one_length_give_the_paired_t_test():
    g = torch.Generator().manual_seed(0)
    before, now = torch.rand(12, generator=g, dtype=torch.float64), torch.rand(12, generator=g, dtype=torch.float64)
    change = change_of_loss(before, now, torch.ones(12))
    expected = stats.ttest_rel(now.numpy(), before.numpy())
    assert change.value / change.error == pytest.approx(expected.statistic)
    assert change.freedom == 11


def test_the_gap_gives_welchs_t_test():
    g = torch.Generator().manual_seed(1)
    members, heldout = (torch.randn(n, generator=g, dtype=torch.float64) * sd for n, sd in ((9, 1.0), (30, 3.0)))
    changes = [change_of_loss(torch.zeros_like(d), d, torch.ones_like(d)) for d in (members, heldout)]
    gap = change_of_gap(*changes)
    expected = stats.ttest_ind(heldout.numpy(), members.numpy(), equal_var=False)
    assert gap.value / gap.error == pytest.approx(expected.statistic)
    assert gap.freedom == pytest.approx(expected.df)
    limit = stats.t.ppf(0.995, expected.df) * gap.error
    assert Change(limit * 1.001, gap.error, gap.freedom).beyond_noise()
    assert not Change(limit * 0.999, gap.error, gap.freedom).beyond_noise()


def test_the_error_is_the_spread_over_draws_of_texts_of_many_lengths():
    g = torch.Generator().manual_seed(2)
    values, errors = [], []
    for _ in range(2000):
        n = torch.randint(3, 80, (60,), generator=g).double()
        d = n * (-0.5 + 0.4 * torch.randn(60, generator=g, dtype=torch.float64))
        change = change_of_loss(torch.zeros(60), d, n)
        values.append(change.value)
        errors.append(change.error**2)
    spread = torch.tensor(values).std().item()
    assert math.sqrt(sum(errors) / len(errors)) == pytest.approx(spread, rel=0.05)
    assert sum(values) / len(values) == pytest.approx(-0.5, abs=4 * spread / math.sqrt(2000))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_texts_show_nothing(n):
    change = change_of_loss(torch.zeros(n), torch.full((n,), 9.0), torch.ones(n))
    assert not change.beyond_noise()
    assert not change_of_gap(change, change_of_loss(torch.zeros(5), torch.arange(5.0), torch.ones(5))).beyond_noise()


def test_a_change_without_spread_is_beyond_noise():
    assert Change(1e-9, 0.0, math.inf).beyond_noise()
    assert not Change(0.0, 0.0, math.inf).beyond_noise()
