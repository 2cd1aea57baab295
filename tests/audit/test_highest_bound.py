"""The highest of a run's bounds on epsilon: valid at its confidence for all validations, also after resuming."""

import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import zeta

from lit_mem.audit.measure import Pass, Recalling, Stateful
from lit_mem.audit.measures.privacy_audit import HIGHEST, PrivacyAudit, level_of_look
from lit_mem.audit.table import ScoreTable
from lit_mem.callbacks import PrivacyAudit as PrivacyAuditCallback
from lit_mem.data.canaries import RandomTokens
from lit_mem.functional import one_run_audit as of_one_run
from lit_mem.functional.one_run_audit import one_run_audit

BY_ITSELF = "audit/epsilon_lower_bound"
SUBJECT = SimpleNamespace(privacy_claim=lambda: None)


class Validated:
    """An audit over canaries with given scores."""

    def __init__(self, member, **options):
        self.member, self.audit = member, PrivacyAudit(**options)

    def __call__(self, score, **run):
        once = torch.ones(len(score))
        table = ScoreTable(torch.arange(len(score)), self.member, {"score": score, "repetitions": once})
        self.audit._scores.compute = lambda: table
        return self.audit.compute(Pass(**({"subject": SUBJECT, "stage": "fit", "step": 1} | run)))


def coins(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(n) < 0.5)


def scores(member, shift, seed):
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(len(member)))
    return noise + shift * member


def test_levels_of_all_looks_sum_to_that_of_one():
    """Compared with the Basel sum, and its tail by the Hurwitz zeta function."""
    found = math.fsum(level_of_look(0.05, k) for k in range(1, 1001))
    assert found == pytest.approx(0.05 * (1 - zeta(2, 1001) / zeta(2)), rel=1e-12)
    assert found < 0.05


def test_each_validation_is_judged_at_the_level_of_its_look():
    member, shifts = coins(200), [0.5, 3.0, 1.0, 2.0]
    validated, highest = Validated(member, delta=1e-5), []
    for k, shift in enumerate(shifts, start=1):
        score = scores(member, shift, k)
        metrics = validated(score, step=k).metrics
        assert metrics[BY_ITSELF] == one_run_audit(score, member, [50], 1e-5, 0.95).epsilon
        confidence = 1 - 0.05 * 6 / (math.pi**2 * k**2)
        highest.append(max([*highest, one_run_audit(score, member, [50], 1e-5, confidence).epsilon]))
        assert metrics[HIGHEST] == pytest.approx(highest[-1])
    assert highest[1] == highest[3] > highest[0]


def test_only_validations_of_a_fit_are_counted():
    member = coins(200)
    validated, strong = Validated(member), scores(member, 3.0, 1)
    assert HIGHEST not in validated(strong, stage="validate").metrics
    assert HIGHEST not in validated(strong, checking=True, step=0).metrics
    assert validated(strong, complete=False).metrics == {}
    first = validated(strong).metrics[HIGHEST]
    alone = Validated(member)(strong).metrics[HIGHEST]
    assert first == alone > 0
    assert validated(strong, checking=True, step=7).metrics[HIGHEST] == first  # repeats the last validation


def test_a_new_run_starts_anew_and_a_resumed_one_counts_on():
    member = coins(200)
    whole, halted = Validated(member), Validated(member)
    expected = [whole(scores(member, 1.5, k)).metrics for k in range(1, 7)]
    for k in range(1, 4):
        halted(scores(member, 1.5, k))
    assert isinstance(halted.audit, Stateful)
    assert isinstance(halted.audit, Recalling)
    by_checkpoint, by_record = Validated(member), Validated(member)
    for one in (by_checkpoint, by_record):
        one.audit.open(SUBJECT, None, fresh=False)
    by_checkpoint.audit.load_state_dict(halted.audit.state_dict())
    by_record.audit.recall([{"val/loss": 1.0}, *expected[:3]])
    for one in (by_checkpoint, by_record):
        assert [one(scores(member, 1.5, k)).metrics for k in range(4, 7)] == expected[3:]
    halted.audit.open(SUBJECT, None, fresh=True)
    assert halted(scores(member, 1.5, 1)).metrics == expected[0]


def test_other_options_are_another_state():
    keys = {PrivacyAudit(**options).state_key for options in ({}, {"confidence": 0.9}, {"delta": 0}, {"guesses": [4]})}
    assert len(keys) == 4


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [12, pytest.param(50, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("alike", [0.5, pytest.param(0.9, marks=pytest.mark.exhaustive)])
def test_without_memorization_the_highest_bound_is_rarely_above_zero(epochs, alike, monkeypatch):
    """Scores are independent of insertion, and correlated between consecutive epochs."""
    monkeypatch.setattr(of_one_run, "epsilon_lower_bound", lru_cache(None)(of_one_run.epsilon_lower_bound))
    runs, above, above_by_itself = {12: 200, 50: 100}[epochs], 0, 0
    random = np.random.default_rng([epochs, int(10 * alike)])
    for seed in range(runs):
        member = coins(200, seed)
        validated, score = Validated(member, delta=1e-5), random.standard_normal(200)
        plain = []
        for k in range(epochs):
            metrics = validated(torch.from_numpy(score), step=k + 1).metrics
            plain.append(metrics[BY_ITSELF])
            score = alike * score + math.sqrt(1 - alike**2) * random.standard_normal(200)
        above += metrics[HIGHEST] > 0
        above_by_itself += max(plain) > 0
    assert above / runs <= 0.05, (above, above_by_itself, runs)
    assert above_by_itself / runs > 0.05  # the reason for the levels


@pytest.mark.slow
def test_a_resumed_fit_has_the_highest_of_all_its_validations(module, data, trainer, tmp_path):
    def fit(audit, max_epochs, **options):
        model = module(dropout=0.0, rank=16, targets=["all-linear"], lr=1e-2)
        corpus = data(train_size=4, heldout_size=4, batch_size=16, canaries=RandomTokens(40, length=8, seed=2))
        made = trainer([audit], max_epochs=max_epochs)
        made.fit(model, corpus, **options)
        return made

    torch.manual_seed(1)
    whole, half, rest = PrivacyAuditCallback(delta=0), PrivacyAuditCallback(delta=0), PrivacyAuditCallback(delta=0)
    fit(whole, 4)
    torch.manual_seed(1)
    fit(half, 2).save_checkpoint(tmp_path / "half.ckpt")
    fit(rest, 4, ckpt_path=tmp_path / "half.ckpt")
    assert rest.state_dict() == whole.state_dict()
    assert rest.state_dict()["validations"] == 4
    assert rest.state_dict()["highest"] > 0
