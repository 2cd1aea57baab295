"""The gradient norm compared with `backward()` of the model's own loss on one text at a time."""

import pytest
import torch

from lit_mem.attacks.gradient_norm import GradientNorm
from lit_mem.errors import MetricError
from lit_mem.models.base_models import load_base


def norm_by_backward(model, ids, start):
    """√Σ g² over all trained parameters of the model's own loss, with labels from `start` on."""
    model.zero_grad()
    labels = ids.clone()
    labels[:start] = -100
    model(input_ids=ids[None], labels=labels[None]).loss.backward()
    total = sum(p.grad.double().square().sum() for p in model.parameters() if p.requires_grad and p.grad is not None)
    model.zero_grad()
    return total.sqrt().item()


@pytest.mark.parametrize("kind", ["lora", "full", "head only"])
def test_it_is_the_norm_that_backward_gives(kind, request, make_prober, tokenizer, small, encode, scored, texts):
    if kind == "lora":
        model = request.getfixturevalue("tuned")
    else:
        model = load_base("asset:tiny_llama").eval()
        model.requires_grad_(kind == "full")
        model.model.norm.requires_grad_(True)
    prober = make_prober(tokenizer, model)
    prompted = encode(texts[9], 50, prompt="Report: the ")
    attack = GradientNorm()
    attack.prepare(prober)
    values = attack(scored(prober, [*small, prompted])).tolist()
    for example, value in zip([*small, prompted], values, strict=True):
        start = int((example.labels != -100).nonzero()[0])
        assert value == pytest.approx(-norm_by_backward(model, example.input_ids[:-1], start), rel=1e-4)
    assert len({round(value, 6) for value in values}) == len(values)


def test_a_model_without_trainable_parameters_is_rejected(make_prober, tokenizer):
    with pytest.raises(MetricError, match="GradientNorm needs trained parameters"):
        GradientNorm().prepare(make_prober(tokenizer, load_base("asset:tiny_llama").eval()))


def test_a_parameter_that_the_loss_does_not_reach_counts_for_nothing(make_prober, tokenizer, tuned, small, scored):
    prober = make_prober(tokenizer, tuned)
    attack = GradientNorm()
    attack.prepare(prober)
    before = attack(scored(prober, small))
    tuned.idle = torch.nn.Parameter(torch.ones(3))
    assert torch.equal(attack(scored(prober, small)), before)
