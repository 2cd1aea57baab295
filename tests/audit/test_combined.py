"""The attack `combined` in a validation: the half it is evaluated on, and its messages."""

import logging

import lightning.pytorch as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from lit_mem.attacks.loss import Loss
from lit_mem.attacks.min_k import MinK
from lit_mem.callbacks import MembershipInference
from lit_mem.functional.combine import half_split_scores
from lit_mem.types import TokenScores

N, TOKENS = 110, 7


class Scorer(pl.LightningModule):
    """Scores without a model; reproducible."""

    def validation_step(self, batch, batch_idx):
        generator = torch.Generator().manual_seed(0)
        member = torch.arange(2 * self.n) < self.n
        logprob = torch.randn(2 * self.n, TOKENS, generator=generator) - 4 + 0.3 * member[:, None]
        ones = torch.ones_like(logprob).bool()
        return TokenScores(logprob, ones, ones, torch.arange(2 * self.n), member)


def validate(n):
    callback = MembershipInference({"loss": Loss(), "min_k": MinK()}, fprs=[0.01], plots=False)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[callback]
    )
    model = Scorer()
    model.n = n
    trainer.validate(model, DataLoader(torch.zeros(1, 1)), verbose=False)
    return callback, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture
def said(caplog):
    logging.getLogger("lit_mem").propagate = True
    caplog.set_level(logging.INFO, logger="lit_mem")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("lit_mem")]


def test_it_is_judged_on_the_half_that_it_was_not_fitted_on(said):
    callback, logged = validate(N)
    table = callback.examples
    columns = {name: table[f"mia/{name}"] for name in ("loss", "min_k")}
    expected = half_split_scores(columns, table.member, table.example_id)
    assert torch.equal(table["mia/combined"].nan_to_num(nan=99), expected.nan_to_num(nan=99))
    judged = ~expected.isnan()
    assert (int((judged & table.member).sum()), int((judged & ~table.member).sum())) == (N // 2, N // 2)
    area = roc_auc_score(table.member[judged], expected[judged])
    assert logged["mia/combined_auroc"] == pytest.approx(area, abs=1e-6)
    assert logged["mia/loss_auroc"] == pytest.approx(roc_auc_score(table.member, columns["loss"]), abs=1e-6)
    # 110 non-members suffice for an FPR of 1 %, the 55 left for `combined` do not.
    assert "mia/loss_tpr_at_fpr_0.01" in logged
    assert "mia/combined_tpr_at_fpr_0.01" not in logged
    assert said()[:-1] == ["combined: TPR at FPR 0.01 needs at least 100 non-members, there are 55: not logged."]


def test_what_is_too_few_for_all_is_said_once(said):
    _, logged = validate(20)
    assert "mia/combined_auroc" in logged
    assert said()[:-1] == ["TPR at FPR 0.01 needs at least 100 non-members, there are 20: not logged."]


def test_three_texts_of_a_kind_are_too_few(said):
    _, logged = validate(3)
    assert "mia/loss_auroc" in logged
    assert "mia/combined_auroc" not in logged
    assert "No attack 'combined': it needs at least 4 members and non-members." in said()
