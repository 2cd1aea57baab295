"""Goldfish loss and floor: which tokens and texts contribute a gradient."""

import pytest
import torch

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.training.goldfish import goldfish_dropped
from lit_mem.training.objective import TrainingLoss


@pytest.fixture
def scorer(base):
    return TokenScorer(LoRA(rank=4, targets=["v", "o"], dropout=0.0, init="gaussian").wrap(base).train())


def gradient(scorer, loss):
    wanted = [p for p in scorer.model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)])


def test_the_default_is_the_plain_loss_to_the_last_bit(scorer, batch):
    trained, shown = TrainingLoss()(scorer, batch)
    assert trained is shown
    assert torch.equal(trained, scorer.loss(batch))
    assert TrainingLoss().trained(batch) is batch


def test_goldfish_trains_on_the_other_tokens_only(scorer, batch):
    labels = batch["labels"].clone()
    found, shown = TrainingLoss(goldfish_k=3, goldfish_context=4)(scorer, batch)
    assert torch.equal(batch["labels"], labels)  # which measures read
    by_hand = dict(batch) | {"labels": labels.masked_fill(goldfish_dropped(batch["input_ids"], 3, 4), -100)}
    assert torch.equal(found, scorer.loss(by_hand))
    assert found is shown
    kept = (by_hand["labels"] != -100).sum() / (labels != -100).sum()
    assert 0.55 < kept < 0.8
    assert not torch.equal(gradient(scorer, found), gradient(scorer, scorer.loss(batch)))


def test_texts_below_the_floor_give_no_gradient(scorer, examples):
    batch = collate(examples[:6])
    total, count = scorer.text_losses(batch)
    mean = (total / count).detach()
    floor = mean.sort().values[2:4].mean().item()
    above = mean > floor
    assert above.sum() == 3
    found, shown = TrainingLoss(floor=floor)(scorer, batch)
    torch.testing.assert_close(shown, scorer.loss(batch).detach(), rtol=1e-6, atol=0)
    alone = collate([e for e, keep in zip(examples[:6], above.tolist(), strict=True) if keep])
    share = (
        count[above].sum() / count.sum()
    )  # others still count in the mean, so that the remaining ones do not weigh more
    torch.testing.assert_close(
        gradient(scorer, found), share * gradient(scorer, scorer.loss(alone)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("floor", "same"), [(1e-6, True), (1e6, False)])
def test_floors_that_hold_none_and_all(floor, same, scorer, batch):
    found, _ = TrainingLoss(floor=floor)(scorer, batch)
    expected = gradient(scorer, scorer.loss(batch))
    torch.testing.assert_close(gradient(scorer, found), expected * same, rtol=1e-4, atol=1e-5)


def test_both_together(scorer, batch):
    made = TrainingLoss(goldfish_k=2, goldfish_context=3, floor=1e6)
    found, shown = made(scorer, batch)
    assert found == 0
    assert shown == pytest.approx(TrainingLoss(goldfish_k=2, goldfish_context=3)(scorer, batch)[0].item(), rel=1e-5)


@pytest.mark.parametrize("made", [TrainingLoss(), TrainingLoss(goldfish_k=3), TrainingLoss(floor=1.2)])
def test_the_loss_of_a_text_does_not_depend_on_the_batch(made, scorer, examples):
    trained, total, count = made.by_text(scorer, collate(examples[:6], width=40))
    for i in range(6):
        alone = made.by_text(scorer, collate(examples[i : i + 1], width=40))
        torch.testing.assert_close(trained[i], alone[0][0], rtol=1e-5, atol=1e-6)
        assert count[i] == alone[2][0]
        torch.testing.assert_close(total[i], alone[1][0], rtol=1e-5, atol=1e-6)
    if made.floor is not None:
        assert 0 < (trained == 0).sum() < 6


def test_a_text_that_goldfish_leaves_nothing_of_has_no_loss(scorer, examples):
    batch = collate(examples[:1])
    short = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    trained, total, count = TrainingLoss(floor=1.0).by_text(scorer, short)
    assert (trained.item(), total.item(), count.item()) == (0, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goldfish_k": 1}, "goldfish_k is 1; expected at least 2"),
        ({"goldfish_k": 4, "goldfish_context": 0}, "goldfish_context is 0; expected at least 1"),
        ({"floor": 0.0}, "floor is 0.0; expected above 0"),
        ({"floor": float("nan")}, "floor is nan"),
    ],
)
def test_options_that_cannot_work_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainingLoss(**options)
