"""Min-K%++ compared with μ and σ over the whole vocabulary in float64, one text at a time."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from lit_mem.attacks import MinK, MinKPlusPlus
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError, MetricError
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import TokenScores


@torch.no_grad()
def next_token_logprobs(model, example):
    """(n, V) float64 log p(. | x_<t) for every token but the first, and the (n,) tokens."""
    logits = model(input_ids=example.input_ids[None]).logits[0, :-1]
    return logits.double().log_softmax(-1), example.input_ids[1:]


def moments(logprobs):
    """μ and σ as sums over the vocabulary, weighted by the probability of each token."""
    mean = (logprobs.exp() * logprobs).sum(-1)
    return mean, (logprobs.exp() * (logprobs - mean[:, None]) ** 2).sum(-1).sqrt()


def scores_of(rows):
    """One example per row of (ℓ, μ, σ)."""
    width = max(len(row) for row in rows) + 1
    logprob, mean, std = torch.zeros(3, len(rows), width)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        for t, (of_token, expected, spread) in enumerate(row, start=1):
            logprob[i, t], mean[i, t], std[i, t], mask[i, t] = of_token, expected, spread, True
    ids = torch.arange(len(rows))
    return TokenScores(logprob, torch.zeros_like(mask), mask, ids, ids % 2 == 0, mean=mean, std=std)


def from_the_model(model, examples):
    """Token scores of the model, with independently computed moments."""
    scores = TokenScorer(model)(collate(examples))
    mean, std = torch.zeros(2, *scores.mask.shape)
    for row, example in enumerate(examples):
        n = len(example.input_ids)
        mean[row, 1:n], std[row, 1:n] = moments(next_token_logprobs(model, example)[0])
    return replace(scores, mean=mean, std=std)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.05, 0.5, 1.0))])
def test_it_is_the_papers_formula_over_the_whole_vocabulary(base, examples, share):
    score = MinKPlusPlus(share)(from_the_model(base, examples))
    for row, example in enumerate(examples):
        logprobs, truth = next_token_logprobs(base, example)
        mean, std = moments(logprobs)
        z = ((logprobs.gather(1, truth[:, None])[:, 0] - mean) / std).sort().values
        k = max(1, int(Fraction(str(share)) * len(z)))
        assert score[row].item() == pytest.approx(z[:k].mean().item(), abs=1e-3, rel=1e-4)


@pytest.mark.slow
def test_moments_over_the_vocabulary_with_equal_weights_are_another_statistic(base, examples):
    """What another implementation computes; if both agreed, the test above could not distinguish them."""
    score = MinKPlusPlus()(from_the_model(base, examples))
    unweighted = []
    for example in examples:
        logprobs, truth = next_token_logprobs(base, example)
        z = (logprobs.gather(1, truth[:, None])[:, 0] - logprobs.mean(-1)) / logprobs.std(-1)
        unweighted.append(z.sort().values[: max(1, len(z) // 5)].mean())
    assert (score - torch.stack(unweighted)).abs().min() > 0.1


@pytest.mark.parametrize("share", [0.01, 0.2, 0.29, 1.0])
def test_it_is_a_plain_loop(share):
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n in [1, 2, 5, 30, 100]:
        numbers = torch.rand(n, 3, generator=generator) * torch.tensor([-9.0, -5.0, 3.0])
        rows.append([tuple(row) for row in numbers.tolist()])
    score = MinKPlusPlus(share)(scores_of(rows))
    for value, row in zip(score.tolist(), rows, strict=True):
        z = sorted((of_token - mean) / max(std, 1e-4) for of_token, mean, std in row)
        k = max(1, int(Fraction(str(share)) * len(z)))
        assert value == pytest.approx(sum(z[:k]) / k, rel=1e-9, abs=1e-9)


def test_with_nothing_to_expect_it_is_min_k():
    rows = [[(-1.0, 0.0, 1.0), (-5.0, 0.0, 1.0)], [(-3.0, 0.0, 1.0)]]
    assert torch.equal(MinKPlusPlus()(scores_of(rows)), MinK()(scores_of(rows)))


def test_a_certain_next_token_gives_a_finite_score_and_keeps_the_order():
    """σ is 0: the certain token is exactly as likely as expected; others are far below, in order of probability."""
    certain, unlikely, unlikelier = (scores_of([[(of_token, 0.0, 0.0)]]) for of_token in (0.0, -60.0, -110.0))
    score = torch.cat([MinKPlusPlus()(scores) for scores in (certain, unlikely, unlikelier)])
    assert torch.isfinite(score).all()
    assert score[0] == 0
    assert score[0] > score[1] > score[2]


@pytest.mark.parametrize("vocabulary", [2, 1000, 128_256])
def test_where_all_tokens_are_equally_likely_rounding_is_not_blown_up(vocabulary):
    """The true σ is 0, and ℓ − μ and σ are float32 rounding errors: their ratio would be arbitrary."""
    logprobs = torch.full((1, vocabulary), 0.1).log_softmax(-1)
    mean = (logprobs.exp() * logprobs).sum(-1)
    std = (logprobs.exp() * (logprobs - mean[:, None]) ** 2).sum(-1).sqrt()
    scores = scores_of([[(logprobs[0, 0].item(), mean.item(), std.item())]])
    assert abs(MinKPlusPlus()(scores).item()) < 0.2


@pytest.mark.parametrize("gap", [5.0, 10.0, 15.0, 18.0])
def test_a_confident_but_not_certain_token_is_left_as_it_is(gap):
    """One alternative `gap` nats below: in closed form (ℓ − μ)/σ is ±sqrt of the odds."""
    logprobs = torch.tensor([[gap, 0.0]], dtype=torch.float64).log_softmax(-1)
    mean, std = moments(logprobs)
    assert std > 1e-4
    row = (logprobs[0, 1].item(), mean.item(), std.item())
    expected = -(torch.tensor(gap, dtype=torch.float64).exp().sqrt().item())
    assert MinKPlusPlus()(scores_of([[row]])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gone", ["mean", "std"])
def test_without_moments_it_says_so(gone):
    scores = replace(scores_of([[(-1.0, -1.0, 1.0)]]), **{gone: None})
    with pytest.raises(MetricError, match="moments"):
        MinKPlusPlus()(scores)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_rejected(share):
    with pytest.raises(ConfigError, match=r"MinKPlusPlus\.share is"):
        MinKPlusPlus(share)
