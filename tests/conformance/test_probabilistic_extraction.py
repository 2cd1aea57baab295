"""(n, p)-discoverable extraction: probabilities too small for the plain formula, and under the sampling scheme."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from lit_mem.extraction import Discoverable, ExactMemorization
from lit_mem.functional.tries import log_tries, probability_within
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs, Sampling

GREEDY_TWO = Sampling(top_k=2)


@pytest.mark.parametrize(("exponent", "n"), [(17, 10**18), (17, 10**16), (40, 10**39), (3, 50)])
def test_a_probability_below_rounding_is_not_zero(exponent, n):
    """PrivacyGuard and Levanter compute 1 − (1 − p)ⁿ, which is 0 for p below 1e-16 at any n."""
    theirs = 1 - (1 - 10.0**-exponent) ** float(n)
    with localcontext() as context:
        context.prec = 80
        right = float(1 - (1 - Decimal(10) ** -exponent) ** n)
    assert (theirs == 0) == (exponent > 16)
    logprob = torch.tensor([-exponent * math.log(10)], dtype=torch.float64)
    assert probability_within(logprob, float(n)).item() == pytest.approx(right, rel=1e-9)


def test_the_number_of_tries_is_finite_however_unlikely_the_text(scores_of):
    """log(1 − p) / log(1 − p_z) divides by log 1 = 0, and p_z itself underflows below exp(−745)."""
    log_p = torch.tensor([math.log(1e-20), -1657.0], dtype=torch.float64)
    assert [math.log(1 - p) for p in log_p.exp().tolist()] == [0.0, 0.0]
    assert math.exp(-1657.0) == 0.0
    with localcontext() as context:
        context.prec = 900
        context.Emin = -100_000
        right = [float((Decimal("0.5").ln() / (1 - Decimal(v).exp()).ln()).ln()) for v in log_p.tolist()]
    assert log_tries(log_p, 0.5).tolist() == pytest.approx(right, rel=1e-12)
    # Sixty tokens of 27.6 nats each: never within a thousand tries, but measurable.
    rare = scores_of([[-27.6] * 60], sampled={Sampling(top_k=40): [[-27.6] * 60]})
    assert Discoverable(prefix=0).suffix_logprob(rare).item() == pytest.approx(-1656.0, rel=1e-6)


def test_top_k_is_renormalised_before_the_sum(fixed_logits, batch_of):
    """When sampling from two tokens, they share all probability; otherwise every text counts as rarer than it is."""
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0])
    text = [3, 0, 1, 0]
    scores = TokenScorer(fixed_logits(logits))(batch_of(text), Needs(sampling=frozenset({GREEDY_TWO})))
    p = logits.exp()
    right = math.log(p[0] / (p[0] + p[1])) * 2 + math.log(p[1] / (p[0] + p[1]))
    theirs = logits.log_softmax(-1)[text[1:]].sum().item()
    measure = Discoverable(n=1, p=None, prefix=0, sampling=GREEDY_TWO)
    assert measure.suffix_logprob(scores).item() == pytest.approx(right, abs=1e-6)
    assert theirs < right - 0.5
    # Token by token, only these two are sampled: three samples sum to 1.
    total = sum(
        measure(
            TokenScorer(fixed_logits(logits))(batch_of([3, a, b, c]), Needs(sampling=frozenset({GREEDY_TWO})))
        ).item()
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    )  # fmt: skip
    assert total == pytest.approx(1.0, abs=1e-6)


def test_a_token_outside_the_top_k_is_never_drawn(fixed_logits, batch_of):
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0])
    scores = TokenScorer(fixed_logits(logits))(batch_of([3, 0, 2]), Needs(sampling=frozenset({GREEDY_TWO})))
    assert Discoverable(n=1e18, p=None, prefix=0, sampling=GREEDY_TWO)(scores).item() == 0.0


def test_the_greedy_rate_is_not_the_mean_probability(fixed_logits, batch_of):
    """Levanter's `compute_greedy_extraction_rate` is the mean of p_z, for any sampling scheme.

    Under top-k 1 the two are the same; under a sampling scheme, a text that greedy decoding reproduces whole counts
    a tenth here.
    """
    logits = torch.tensor([0.1 ** (1 / 4), 1 - 0.1 ** (1 / 4)]).log()
    batch, greedy = batch_of([0] * 5), Sampling(top_k=1)
    scores = TokenScorer(fixed_logits(logits))(batch, Needs(sampling=frozenset({greedy, Sampling()})))
    theirs = Discoverable(n=1, p=None, prefix=0, sampling=Sampling())(scores).item()
    assert theirs == pytest.approx(0.1, rel=1e-5)
    assert ExactMemorization()(scores).item() == 1.0
    assert Discoverable(n=1, p=None, prefix=0, sampling=greedy)(scores).item() == 1.0
