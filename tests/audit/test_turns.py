"""Turns of conversations, compared with a plain loop over the model, one conversation at a time, and scikit-learn."""

import random

import pytest
import torch
from datasets import Dataset, DatasetDict
from sklearn.metrics import roc_auc_score

import lit_mem
from lit_mem.assets import chat_template
from lit_mem.audit.measures.turns import Turns
from lit_mem.data import TextDataModule
from lit_mem.data.chat.options import Chat
from lit_mem.functional.runs import runs
from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.memorization import Memorization

pytestmark = pytest.mark.slow

CHATML = Chat(template="asset:chatml")


def talks(seed, n, turns=2):
    """Synthetic conversations, each assistant turn with its own words."""
    dice = random.Random(seed)
    words = ("rash", "fever", "nausea", "aspirin", "lithium", "day", "dose", "stopped", "came", "after")

    def said():
        return " ".join(dice.choices(words, k=6)) + f" {dice.randrange(10**6)}."

    pair = [("user", "assistant")] * turns
    return [{"messages": [{"role": role, "content": said()} for two in pair for role in two]} for _ in range(n)]


@pytest.fixture(scope="module")
def trained(module, trainer):
    """A module trained on conversations, and its data."""
    members, heldout = talks(0, 12), talks(1, 10)
    made = module(rank=8, targets=["all-linear"])
    sets = DatasetDict({"train": Dataset.from_list(members), "heldout": Dataset.from_list(heldout)})
    data = TextDataModule(sets, check=False, max_length=256, chat=CHATML)
    pl = trainer([Memorization(suite="quick")], max_epochs=12)
    pl.fit(made, data)
    return made, members, heldout, dict(audit_of(pl).audit.result.metrics)


def by_hand(model, tokenizer, rows):
    """(conversations, turns) mean log-probability of the tokens of each assistant turn."""
    found = []
    for row in rows:
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False, chat_template=chat_template("chatml"))
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt")
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"][0].tolist()
        with torch.no_grad():
            logprob = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        each = logprob.gather(1, ids[0, 1:, None])[:, 0]
        turns = []
        for said in row["messages"][1::2]:
            start = text.index(said["content"])
            inside = [a < start + len(said["content"]) and b > start for a, b in offsets]
            turns.append(each[torch.tensor(inside[1:])].mean().item())
        found.append(turns)
    return torch.tensor(found)


def test_each_turn_is_scored_as_a_plain_loop_scores_it(trained):
    made, members, heldout, logged = trained
    made.eval()
    model, tokenizer = made.language_model, made.tokenizer
    audited = lit_mem.audit(model, tokenizer, members, heldout, chat=CHATML, suite="quick", folder=None, check=False)
    tuned = [by_hand(model, tokenizer, rows) for rows in (members, heldout)]
    with model.disable_adapter():
        base = [by_hand(model, tokenizer, rows) for rows in (members, heldout)]
    label = [1] * tuned[0].numel() + [0] * tuned[1].numel()
    for name, scores in {"loss": tuned, "reference": [a - b for a, b in zip(tuned, base, strict=True)]}.items():
        expected = roc_auc_score(label, torch.cat([one.flatten() for one in scores]))
        assert audited.metrics[f"turn/{name}_auroc"] == pytest.approx(expected, abs=1e-9)
        assert logged[f"turn/{name}_auroc"] == pytest.approx(expected, abs=1e-9)
        highest = torch.cat([one.amax(dim=1) for one in scores])
        assert audited.rows[f"turn/{name}"].tolist() == pytest.approx(highest.tolist(), abs=1e-5)
    assert logged["turn/reference_auroc"] > 0.6
    low, high = (audited.metrics[f"turn/reference_auroc_{end}"] for end in ("low", "high"))
    assert low < audited.metrics["turn/reference_auroc"] < high


def test_it_is_silent_where_no_example_has_two_turns(trained):
    made, *_ = trained
    members, heldout = talks(2, 4, turns=1), talks(3, 4, turns=1)
    options = {"chat": CHATML, "suite": "quick", "folder": None, "check": False}
    found = lit_mem.audit(made.language_model, made.tokenizer, members, heldout, **options)
    assert not [name for name in found.metrics if name.startswith("turn/")]
    assert Turns().names() == []


def test_runs_of_nothing():
    assert runs(torch.zeros(4, dtype=torch.bool)) == []
