"""Unprompted leaks measured in a run: the texts searched, and when."""

import logging

import pytest
import torch

from lit_mem.callbacks import UnpromptedLeaks
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module_subject import ModuleSubject

SMALL = {"n": 3, "length": 8, "openings": 1, "min_texts": 2, "opening_words": 1}


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "lit_mem.audit.measures.unprompted"]


@pytest.mark.parametrize("known", [True, False])
def test_all_members_are_read_or_those_that_are_scored(known, module, data, trainer, monkeypatch, caplog):
    if not known:  # like a data module without `all_texts`
        monkeypatch.setattr(ModuleSubject, "all_texts", lambda self, member: None)
    own = UnpromptedLeaks(**SMALL)
    with caplog.at_level(logging.INFO, "lit_mem"):
        trainer([own]).validate(module(), data(train_size=12, heldout_size=8, members_size=8), verbose=False)
    (line,) = lines(caplog)
    assert f"in {12 if known else 8} members and 8 held-out texts" in line
    assert "the scored ones" in line or known
    assert set(own.metrics) == set(own.names())
    assert own.metrics["leak/verbatim_share"] == 0  # the model equals its base


def test_in_a_fit_it_writes_in_every_nth_validation_and_leaves_training_alone(module, data, trainer, trained):
    weights = {}
    for name, measures in (("with", [UnpromptedLeaks(**SMALL, every_n_validations=2)]), ("without", [])):
        torch.manual_seed(0)
        model = module(dropout=0.1)
        own = Memorization("none", measures=measures, log="all") if measures else None
        t = trainer([own] if own else [], max_epochs=2, num_sanity_val_steps=-1 if own else 0)
        t.fit(model, data(train_size=6, heldout_size=4, batch_size=3))
        weights[name] = trained(model)
        if own:
            assert "leak/verbatim_share" in t.callback_metrics
            assert measures[0].state_dict() == {"validations": 2}
    assert all((weights["with"][name] == value).all() for name, value in weights["without"].items())
