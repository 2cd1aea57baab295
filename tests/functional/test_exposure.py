"""Exposure by exact rank: the definition, a plain loop, published values, and invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.errors import MetricError
from lit_mem.functional.exposure import chance_exposure, exposure

FAST = settings(deadline=None, max_examples=4 * settings.default.max_examples // 5)
NUMBERS = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


@FAST
@given(NUMBERS, NUMBERS)
def test_a_plain_loop(inserted, heldout):
    found = exposure(torch.tensor(inserted, dtype=torch.float64), torch.tensor(heldout, dtype=torch.float64))
    for score, bits in zip(inserted, found.tolist(), strict=True):
        rank = 1 + sum(1.0 if other > score else 0.5 if other == score else 0.0 for other in heldout)
        assert bits == pytest.approx(math.log2(len(heldout) + 1) - math.log2(rank), abs=1e-12)


@FAST
@given(NUMBERS, NUMBERS, st.sampled_from([2.0**-30, 1.0, 2.0**30]), st.sampled_from([0.0, -1e6, 1e6]))
def test_only_the_order_counts_and_the_range_is_kept(inserted, heldout, scale, shift):
    a, b = torch.tensor(inserted, dtype=torch.float64), torch.tensor(heldout, dtype=torch.float64)
    found = exposure(a, b)
    assert found.min() >= 0
    assert found.max() <= math.log2(len(heldout) + 1)
    assert torch.equal(exposure(a * scale + shift, b * scale + shift), found)
    assert torch.equal(exposure(a, b.flip(0)), found)


def test_four_digits_as_in_the_paper():
    """All but the canary itself of 10^4 numbers held out: the first of them is exposed by log2 10^4 bits."""
    others = torch.arange(1.0, 10_000.0)
    found = exposure(torch.tensor([1e4, 9999.5, 0.5]), others)
    assert found.tolist() == pytest.approx([math.log2(10_000), math.log2(10_000), 0.0], abs=1e-12)
    assert exposure(torch.tensor([9998.5]), others).item() == pytest.approx(math.log2(10_000) - 1)


def test_however_far_above_it_is_the_highest_value_and_never_zero():
    others = torch.randn(63, generator=torch.Generator().manual_seed(0))
    for score in (5.0, 1e3, 1e30):
        assert exposure(torch.tensor([score]), others).item() == 6.0


def test_all_tied_is_the_middle_and_not_the_top():
    assert exposure(torch.zeros(3), torch.zeros(63)).tolist() == [6 - math.log2(1 + 63 / 2)] * 3
    assert exposure(torch.zeros(1), torch.zeros(10**6)).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("n_heldout", [1, 2, 7, 100])
def test_chance_is_the_mean_over_all_ranks(n_heldout):
    others = torch.arange(n_heldout, dtype=torch.float64)
    every = exposure(torch.arange(n_heldout + 1, dtype=torch.float64) - 0.5, others)
    assert chance_exposure(n_heldout) == pytest.approx(every.mean().item(), abs=1e-12)
    assert chance_exposure(10**9) == pytest.approx(math.log2(math.e), abs=1e-7)


@pytest.mark.slow
def test_chance_in_a_simulation():
    draws = torch.randn(4000, 51, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = torch.stack([exposure(row[:1], row[1:])[0] for row in draws]).mean().item()
    assert mean == pytest.approx(chance_exposure(50), abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_any_dtype(dtype):
    found = exposure(torch.tensor([2], dtype=dtype), torch.tensor([1, 3, 0], dtype=dtype))
    assert found.dtype == torch.float64
    assert found.tolist() == [1.0]


@pytest.mark.parametrize(
    ("score", "heldout", "message"),
    [
        ([1.0], [], "at least one"),
        ([[1.0]], [1.0], r"scores \(1, 1\)"),
        ([math.nan], [1.0], "not finite"),
        ([1.0], [-math.inf], "not finite"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(score, heldout, message):
    with pytest.raises(MetricError, match=message):
        exposure(torch.tensor(score), torch.tensor(heldout))


def test_no_inserted_canary_has_no_exposure():
    assert exposure(torch.empty(0), torch.zeros(3)).shape == (0,)
