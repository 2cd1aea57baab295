"""The standardised log-ratio against both models' own logits, in double precision, text by text."""

from contextlib import contextmanager

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from lit_mem.adapters.base import adapter_off
from lit_mem.adapters.lora import LoRA
from lit_mem.attacks.delta_standardized import DeltaStandardized
from lit_mem.data.encoding import collate
from lit_mem.models.base_models import load_base
from lit_mem.scoring.log_ratio import LogRatioScorer, _log_ratio


def logits(model, example):
    """(T − 1, V) float64, what the model says before each token but the first."""
    with torch.no_grad():
        return model(input_ids=example.input_ids[None]).logits[0, :-1].double()


def by_hand(tuned, example):
    """Σ(δ − μ) / √Σσ² over the scored tokens, μ as the Kullback-Leibler divergence that torch.distributions gives."""
    p = Categorical(logits=logits(tuned, example))
    with adapter_off(tuned) as base:
        q = Categorical(logits=logits(base, example))
    ratio = p.logits - q.logits
    mean = kl_divergence(p, q)
    variance = (p.probs * ratio.square()).sum(dim=-1) - mean.square()
    scored = example.scored[1:]
    delta = ratio.gather(1, example.input_ids[1:, None])[:, 0]
    return ((delta - mean)[scored].sum() / (variance[scored] + 1e-8).sum().sqrt()).item()


def test_it_is_what_both_models_logits_give(make_prober, tokenizer, tuned, small, encode, texts, scored):
    prober = make_prober(tokenizer, tuned)
    examples = [*small, encode(texts[9], 50, prompt="Report: the ")]
    attack = DeltaStandardized()
    attack.prepare(prober)
    values = attack(scored(prober, examples)).tolist()
    assert values == pytest.approx([by_hand(tuned, example) for example in examples], rel=1e-3, abs=1e-4)
    assert len({round(value, 4) for value in values}) == len(values)


def test_it_is_exactly_zero_before_training(make_prober, tokenizer, base, small, scored):
    prober = make_prober(tokenizer, LoRA(rank=4).wrap(base).eval())
    attack = DeltaStandardized()
    attack.prepare(prober)
    assert attack(scored(prober, small)).tolist() == [0.0] * len(small)


def test_chunks_of_tokens_change_nothing(tuned, small):
    def reference():
        return adapter_off(tuned)

    whole, few = LogRatioScorer(tuned, reference), LogRatioScorer(tuned, reference)
    few._chunk = 7
    one, other = whole(collate(small)), few(collate(small))
    for name in ("logprob", "mean", "std"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


def test_a_frozen_copy_serves_as_the_adapter_turned_off_does(make_prober, tokenizer, tuned, small, scored):
    copy = load_base("asset:tiny_llama").eval()
    prober = make_prober(tokenizer, tuned)
    attack = DeltaStandardized()
    attack.prepare(prober)
    scores = scored(prober, small)
    off = attack(scores)

    @contextmanager
    def other():
        yield copy

    prober.reference_context = other
    attack.prepare(prober)
    assert torch.equal(attack(scores), off)


def test_what_the_tuned_model_never_gives_has_no_part():
    """A token with a logit of −inf under one model or under both leaves the moments finite."""
    tuned = torch.tensor([[0.0, 1.0, -torch.inf], [0.5, 0.2, 0.1]])
    reference = torch.tensor([[0.3, 0.1, -torch.inf], [0.5, 0.2, 0.1]])
    delta, mean, std = _log_ratio(tuned, reference, torch.tensor([1, 2]))
    p, q = Categorical(logits=tuned[0, :2].double()), Categorical(logits=reference[0, :2].double())
    assert mean.tolist() == pytest.approx([kl_divergence(p, q).item(), 0.0])
    assert delta.tolist() == pytest.approx([(p.logits[1] - q.logits[1]).item(), 0.0])
    assert std[1] == 0
    assert std.isfinite().all()
