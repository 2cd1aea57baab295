"""Provenance of a trainer's run: its training set counted and digested, the adapter's size, the base's fingerprint."""

import json

import pytest

from lit_mem.cli.report import main as report
from lit_mem.files.facts import read_facts
from lit_mem.models.base_models import load_base
from lit_mem.models.fingerprint import fingerprint
from lit_mem.privacy.corpus import salted_digest
from lit_mem.report.verify import verify

pytestmark = pytest.mark.slow

TINY = "asset:tiny_llama"


@pytest.mark.parametrize("given", [False, True], ids=["a sample of the trainer's", "given texts"])
def test_the_facts_of_a_run(given, trainer, callback, member_texts, heldout_texts, tmp_path):
    more = {"members": member_texts[:6], "heldout": heldout_texts[:6]} if given else {}
    made = trainer(callback(members_size=5, heldout_size=5, before_training=True, **more), max_steps=1)
    made.train()
    facts = read_facts(tmp_path / "out" / "memorization")
    rows = made.train_dataset["input_ids"][:]
    assert (facts.members.rows, facts.heldout.rows) == (len(rows), 5)
    assert facts.members.tokens == sum(map(len, rows))
    assert facts.digest_of == "tokens"
    assert facts.members.digest == salted_digest((" ".join(map(str, ids)) for ids in rows), facts.digest_salt)
    assert facts.trained == sum(p.numel() for p in made.model.parameters() if p.requires_grad)
    assert facts.parameters == sum(p.numel() for p in made.model.parameters())
    assert facts.fingerprint == fingerprint(load_base(TINY))
    report([str(tmp_path / "out")])
    annex = json.loads((tmp_path / "out" / "memorization" / "report.json").read_text())["annex"]
    assert annex["counts"]["trained_per_token"] == facts.trained / facts.members.tokens
    assert {one.state for one in verify(tmp_path / "out" / "memorization" / "report.json")} == {"same"}


def test_a_whole_model_is_its_own_base_until_it_is_trained(trainer, callback, tmp_path):
    made = trainer(callback(members_size=4, heldout_size=4), model=load_base(TINY).requires_grad_(True), max_steps=1)
    made.train()
    facts = read_facts(tmp_path / "out" / "memorization")
    assert facts.fingerprint == fingerprint(load_base(TINY))
    assert facts.trained == facts.parameters
