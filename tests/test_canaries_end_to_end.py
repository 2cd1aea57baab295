"""Whole runs on the bundled model: canaries are memorized when repeated, and the audit proves it."""

import logging

import pytest
import torch

from lit_mem.callbacks import Canaries, PrivacyAudit
from lit_mem.data.canaries import RandomTokens, Secrets
from lit_mem.privacy import DPSGD, training

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


@pytest.fixture(scope="module")
def figures(module, data, trainer):
    """The metrics of both callbacks at the end of a run."""

    def run(canaries, epochs, lr=5e-3, rank=16, **options):
        torch.manual_seed(1)
        callbacks = [Canaries(), PrivacyAudit()]
        t = trainer(callbacks, max_epochs=epochs, check_val_every_n_epoch=epochs, num_sanity_val_steps=0)
        model = module(rank=rank, dropout=0.0, targets=["all-linear"], lr=lr, **options)
        t.fit(model, data(train_size=8, heldout_size=4, max_length=96, batch_size=16, canaries=canaries))
        epsilon = t.callback_metrics.get("privacy/epsilon", torch.tensor(torch.inf)).item()
        return {**callbacks[0].metrics, **callbacks[1].metrics, "privacy/epsilon": epsilon}

    return run


def test_exposure_and_extraction_rise_with_repetition(figures):
    found = figures(Secrets(90), epochs=3)
    for name in ("exposure_mean", "auroc"):
        ladder = [found[f"canary/{name}_x{n}"] for n in (1, 4, 16)]
        assert ladder == sorted(set(ladder))
    assert found["canary/exposure_mean_x16"] > 2 + found["canary/exposure_mean_x1"]
    assert found["canary/auroc_x16_low"] > 0.8  # 0.806 at an AUROC of 1, by Wilson's interval of 16 of 16
    assert found["canary/extraction_rate_x16"] >= found["canary/extraction_rate_x1"]
    assert found["canary/extraction_rate_heldout"] == 0


def test_training_without_noise_is_proven_not_to_be_private(figures):
    """A run that claims an ε of 1 and adds no noise is caught."""
    found = figures(RandomTokens(300, length=12), epochs=10, rank=32)
    assert found["audit/epsilon_lower_bound"] > 1
    assert found["canary/auroc_low"] > 0.9


def test_nothing_is_proven_where_nothing_is_learned(figures):
    found = figures(RandomTokens(300, length=12), epochs=1, lr=0.0)
    assert found["audit/epsilon_lower_bound"] == 0
    assert found["canary/auroc"] == 0.5
    assert found["canary/extraction_rate"] == 0


CLAIM = DPSGD(target_epsilon=1, batch_size=32, accountant="rdp", test_seed=3)


def test_the_audit_stays_below_what_private_training_claims(figures, caplog):
    with caplog.at_level(logging.WARNING):
        found = figures(RandomTokens(300, length=12), epochs=10, rank=32, privacy=CLAIM)
    assert 0.5 < found["privacy/epsilon"] <= 1
    assert found["audit/epsilon_lower_bound"] < found["privacy/epsilon"]
    assert "contradicts" not in caplog.text


def test_noise_that_is_left_out_is_caught(figures, monkeypatch, caplog):
    monkeypatch.setattr(training, "add_noise_", lambda *args: None)
    with caplog.at_level(logging.WARNING):
        found = figures(RandomTokens(300, length=12), epochs=10, rank=32, privacy=CLAIM)
    assert found["privacy/epsilon"] <= 1 < found["audit/epsilon_lower_bound"]
    assert "The audit contradicts privacy/epsilon" in caplog.text
