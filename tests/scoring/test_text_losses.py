"""The loss per text compared with the loss of the batch, and of each token with plain cross entropy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import collate
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.training import head_loss as training_loss
from lit_mem.training.head_loss import head_loss, token_losses


@pytest.fixture
def scorer(base):
    return TokenScorer(LoRA(rank=4, targets=["v", "o"], dropout=0.0, init="gaussian").wrap(base).train())


@pytest.mark.parametrize("packed", [False, True])
def test_texts_add_up_to_the_batch(scorer, batch, packed):
    total, count = scorer.text_losses(batch, packed)
    assert total.shape == count.shape == (8,)
    assert total.dtype == torch.float32
    assert count.tolist() == (batch["labels"][:, 1:] != -100).sum(dim=1).tolist()
    torch.testing.assert_close(total.sum() / count.sum(), scorer.loss(batch), rtol=1e-6, atol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_each_text_has_its_own(scorer, examples, packed):
    total, count = scorer.text_losses(collate(examples[:8]), packed)
    for i, example in enumerate(examples[:8]):
        torch.testing.assert_close(total[i] / count[i], scorer.loss(collate([example])), rtol=1e-5, atol=0)


def test_width_makes_no_difference(scorer, examples):
    narrow, _ = scorer.text_losses(collate(examples[:4]))
    wide, _ = scorer.text_losses(collate(examples[:4], width=70))
    torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=0)


def test_a_text_without_a_trained_token_has_none(scorer, batch):
    batch["labels"][2] = -100
    total, count = scorer.text_losses(batch)
    assert (total[2], count[2]) == (0, 0)
    assert (total[:2] > 0).all()
    total.sum().backward()
    batch["labels"][:] = -100
    total, count = scorer.text_losses(batch)
    assert not total.any()
    assert not count.any()
    total.sum().backward()


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("packed", [False, True])
def test_weights_of_texts_weigh_their_gradients(scorer, batch, packed):
    wanted = [p for p in scorer.model.parameters() if p.requires_grad]
    weight = torch.linspace(-1, 2, 8)
    each = [torch.autograd.grad(scorer.text_losses(batch)[0][i], wanted, allow_unused=True) for i in range(8)]
    total, _ = scorer.text_losses(batch, packed)
    for k, found in enumerate(torch.autograd.grad((weight * total).sum(), wanted)):
        expected = sum(weight[i] * each[i][k] for i in range(8))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("at_once", [10**9, 5 * 31])
def test_losses_of_tokens_are_plain_cross_entropy(frozen, bias, at_once, monkeypatch):
    monkeypatch.setattr(training_loss, "_LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(training_loss, "_CPU_BLOCK", at_once // 2)
    head = nn.Linear(6, 31, bias=bias).requires_grad_(not frozen)
    hidden, target = torch.randn(23, 6, requires_grad=True), torch.randint(0, 31, (23,))
    weight = torch.randn(23)
    expected = F.cross_entropy(head(hidden), target, reduction="none")
    found = token_losses(hidden, target, head)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert found.sum().item() == pytest.approx(head_loss(hidden, target, head).item(), rel=1e-6)
    wanted = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    for mine, theirs in zip(
        torch.autograd.grad((weight * found).sum(), wanted),
        torch.autograd.grad((weight * expected).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
