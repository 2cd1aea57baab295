"""The quick readings of logits give what the plain formulas give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.functional.next_token import is_greedy_choice, moments, sampled_logprob, top_values
from lit_mem.types import Sampling


def rows(seed, n, width, distinct=None):
    generator = torch.Generator().manual_seed(seed)
    if distinct:  # few distinct values make many ties
        return torch.randint(distinct, (n, width), generator=generator).float()
    return 3 * torch.randn(n, width, generator=generator)


@given(
    st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 700), st.integers(1, 60), st.sampled_from([None, 2, 5, 50])
)
@settings(max_examples=150, deadline=None)
def test_the_largest_values_are_those_of_topk(seed, n, width, k, distinct):
    logits = rows(seed, n, width, distinct)
    k = min(k, width)
    assert torch.equal(top_values(logits, k), logits.topk(k).values)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 40), st.sampled_from([None, 2, 4]))
@settings(max_examples=100, deadline=None)
def test_the_greedy_choice_is_that_of_argmax(seed, n, width, distinct):
    logits = rows(seed, n, width, distinct)
    target = torch.randint(width, (n,), generator=torch.Generator().manual_seed(seed + 1))
    assert torch.equal(is_greedy_choice(logits, target), logits.argmax(dim=-1) == target)


def test_a_logit_that_is_not_a_number_is_no_greedy_choice():
    assert not is_greedy_choice(torch.tensor([[torch.nan, 1.0]]), torch.tensor([1])).any()


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 200), st.integers(1, 30), st.sampled_from([None, 3, 9]))
@settings(max_examples=100, deadline=None)
def test_sampled_probabilities_sum_to_one_and_are_zero_outside_the_top(seed, n, width, k, distinct):
    logits = rows(seed, n, width, distinct)
    scheme = Sampling(0.8, k)
    every = torch.stack([sampled_logprob(logits, torch.full((n,), v), scheme) for v in range(width)], dim=1)
    torch.testing.assert_close(every.exp().sum(dim=1), torch.ones(n), rtol=0, atol=1e-5)
    kept = (logits >= logits.topk(min(k, width)).values[:, -1:]).sum(dim=1)
    assert torch.equal(every.isfinite().sum(dim=1), kept)


def test_sampled_probabilities_are_the_shares_drawn():
    """Against decoding's own choice, many times."""
    from lit_mem.extraction.decoding import _choose

    logits, scheme = rows(0, 1, 12), Sampling(1.3, 5)
    drawn = _choose(logits.expand(200_000, -1), scheme, torch.rand(200_000, generator=torch.Generator().manual_seed(1)))
    shares = torch.bincount(drawn, minlength=12) / len(drawn)
    expected = torch.cat([sampled_logprob(logits, torch.tensor([v]), scheme) for v in range(12)]).exp()
    torch.testing.assert_close(shares, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_moments_are_those_of_simulation_and_of_the_formula(scale):
    logprobs = (scale * rows(2, 3, 9)).log_softmax(-1)
    mean, std = moments(logprobs.clone())
    wide = logprobs.double()
    expected = (wide.exp() * wide).sum(-1)
    torch.testing.assert_close(mean.double(), expected, rtol=1e-5, atol=1e-6)
    spread = (wide.exp() * (wide - expected[:, None]) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(std.double(), spread, rtol=1e-4, atol=1e-6)
    if scale > 1:
        return  # what decides there is too rare to be drawn
    drawn = torch.multinomial(wide.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    seen = wide.gather(1, drawn)
    torch.testing.assert_close(seen.mean(1), expected, rtol=0, atol=0.05 * max(scale, 1e-3))
    torch.testing.assert_close(seen.std(1), spread, rtol=0.05, atol=1e-6)
