"""The fast reductions of logits equal the plain formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.scoring.next_token import Maxima, greedy_choice, read, sampled_logprob, top_values
from lit_mem.types import Sampling


def rows(seed, n, width, distinct=None):
    generator = torch.Generator().manual_seed(seed)
    if distinct:  # few distinct values give many ties
        return torch.randint(distinct, (n, width), generator=generator).float()
    return 3 * torch.randn(n, width, generator=generator)


@given(
    st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 700), st.integers(1, 60), st.sampled_from([None, 2, 5, 50])
)
@settings(max_examples=3 * settings.default.max_examples // 2, deadline=None)
def test_the_largest_values_are_those_of_topk(seed, n, width, k, distinct):
    logits = rows(seed, n, width, distinct)
    k = min(k, width)
    assert torch.equal(top_values(logits, k), logits.topk(k).values)


@pytest.mark.parametrize("width", [2047, 2048, 2049, 5003, 50257])
@pytest.mark.parametrize("k", [1, 41, 64, 65, 300])
def test_the_largest_values_of_wide_rows_are_those_of_topk(width, k):
    for distinct in (None, 50):
        logits = rows(width + k, 3, width, distinct)
        assert torch.equal(top_values(logits, k), logits.topk(k).values)
        assert torch.equal(top_values(logits, k, Maxima.of(logits)), logits.topk(k).values)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 700), st.integers(1, 60), st.sampled_from([None, 2, 4]))
@settings(max_examples=3 * settings.default.max_examples // 2, deadline=None)
def test_the_greedy_choice_is_that_of_argmax(seed, n, width, k, distinct):
    logits = rows(seed, n, width, distinct)
    assert torch.equal(greedy_choice(logits), logits.argmax(dim=-1))
    assert torch.equal(greedy_choice(logits, Maxima.of(logits, k)), logits.argmax(dim=-1))


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 700), st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None)
def test_maxima_made_for_another_number_of_values_serve_too(seed, n, width, k, other):
    logits = rows(seed, n, width)
    k = min(k, width)
    assert torch.equal(top_values(logits / 0.7, k, Maxima.of(logits, other)), (logits / 0.7).topk(k).values)


@pytest.mark.slow
@pytest.mark.exhaustive
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 200), st.integers(1, 30), st.sampled_from([None, 3, 9]))
@settings(deadline=None)
def test_sampled_probabilities_sum_to_one_and_are_zero_outside_the_top(seed, n, width, k, distinct):
    logits = rows(seed, n, width, distinct)
    scheme = Sampling(0.8, k)
    every = torch.stack([sampled_logprob(logits, torch.full((n,), v), scheme) for v in range(width)], dim=1)
    torch.testing.assert_close(every.exp().sum(dim=1), torch.ones(n), rtol=0, atol=1e-5)
    kept = (logits >= logits.topk(min(k, width)).values[:, -1:]).sum(dim=1)
    assert torch.equal(every.isfinite().sum(dim=1), kept)


def test_sampled_probabilities_are_the_shares_drawn():
    """Compared with decoding's own choice, many times."""
    from lit_mem.generation.decoding import _choose

    logits, scheme = rows(0, 1, 12), Sampling(1.3, 5)
    drawn = _choose(logits.expand(200_000, -1), scheme, torch.rand(200_000, generator=torch.Generator().manual_seed(1)))
    shares = torch.bincount(drawn, minlength=12) / len(drawn)
    expected = torch.cat([sampled_logprob(logits, torch.tensor([v]), scheme) for v in range(12)]).exp()
    torch.testing.assert_close(shares, expected, rtol=0, atol=5e-3)


def plain(logits, target):
    """By the formulas, in double precision."""
    wide = logits.double().log_softmax(-1)
    mean = (wide.exp() * wide).sum(-1)
    spread = (wide.exp() * (wide - mean[:, None]) ** 2).sum(-1).sqrt()
    return wide.gather(1, target[:, None])[:, 0], mean, spread


@pytest.mark.parametrize("shift", [0.0, 500.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_log_probabilities_and_moments_are_those_of_the_formulas(scale, shift):
    logits, target = shift + scale * rows(2, 6, 900), torch.tensor([0, 5, 899, 3, 3, 77])
    logprob, mean, spread = plain(logits, target)
    scratch = torch.full((8, 900), torch.nan)
    for found in (read(logits.clone(), target)[0], read(logits.clone(), target, scratch)[0]):
        torch.testing.assert_close(found.double(), logprob, rtol=1e-6, atol=1e-5)
    alone = read(logits.clone(), target)
    with_moments = read(logits.clone(), target, scratch, moments=True)
    # The reference is read without moments: a difference between the two must come from the models.
    assert torch.equal(alone[0], with_moments[0])
    torch.testing.assert_close(with_moments[1].double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(with_moments[2].double(), spread, rtol=1e-4, atol=1e-5)


def test_the_mean_and_the_spread_are_seen_in_a_simulation():
    logits, target = rows(2, 3, 9), torch.zeros(3, dtype=torch.int64)
    logprobs = logits.double().log_softmax(-1)
    _, mean, spread = read(logits.clone(), target, moments=True)
    drawn = torch.multinomial(logprobs.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    seen = logprobs.gather(1, drawn)
    torch.testing.assert_close(seen.mean(1), mean.double(), rtol=0, atol=0.05)
    torch.testing.assert_close(seen.std(1), spread.double(), rtol=0.05, atol=1e-6)


def test_tokens_that_cannot_come_count_for_nothing():
    logits = rows(4, 2, 30)
    masked = torch.cat([logits, torch.full((2, 5), -torch.inf)], dim=1)
    target = torch.tensor([3, 29])
    for whole, part in zip(read(masked, target, moments=True), read(logits, target, moments=True), strict=True):
        torch.testing.assert_close(whole, part, rtol=1e-6, atol=1e-6)


def test_a_model_that_is_sure_has_no_spread():
    logits = torch.full((1, 5), -200.0)
    logits[0, 2] = 100
    logprob, mean, spread = read(logits, torch.tensor([2]), moments=True)
    assert logprob == 0
    assert mean == 0
    assert spread == 0
