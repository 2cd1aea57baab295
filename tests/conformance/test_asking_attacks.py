"""Probing attacks: their inputs, which tokens count, and the sign of the score."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

import lit_mem.attacks.neighbourhood as neighbourhood
from lit_mem.attacks.gradient_norm import GradientNorm
from lit_mem.attacks.lowercase import Lowercase
from lit_mem.attacks.recall import ReCaLL
from lit_mem.data.encoding import collate
from lit_mem.functional.auroc import auroc
from lit_mem.scoring.scorer import TokenScorer

BOS = 1
PREFIX = ["A short note.", " And another one."]


@pytest.fixture
def some(example_of, texts):
    return [example_of(text, i, i % 2 == 0, length=8 + 3 * i) for i, text in enumerate(texts[:6])]


@pytest.fixture
def recall(prober, tokenizer, tuned, some):
    """ReCaLL's scores of the examples, and the batches it passed to the model."""
    asked = prober(tokenizer, tuned, some)
    attack = ReCaLL(prefix=PREFIX)
    attack.prepare(asked)
    return attack(TokenScorer(tuned)(collate(some))), asked.asked


def note(tokenizer):
    return [i for text in PREFIX for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_recall_has_one_bos_token_and_it_stands_first(recall, tokenizer, tuned, some, loss_from):
    """recall joins two tokenizations, each with its own BOS: a second text seems to start in the middle."""
    ours, asked = recall
    for ids in (row for batch in asked for row in batch["input_ids"]):
        assert (ids == BOS).nonzero().flatten().tolist() == [0]
    for score, example in zip(ours.tolist(), some, strict=True):
        ids = example.input_ids.tolist()
        unconditional = loss_from(tuned, ids)
        right = loss_from(tuned, [BOS, *note(tokenizer), *ids[1:]], 1 + len(note(tokenizer))) / unconditional
        joined = [*tokenizer("".join(PREFIX))["input_ids"], *ids]
        theirs = loss_from(tuned, joined, len(joined) - len(ids)) / unconditional
        assert score == pytest.approx(right, rel=2e-5)
        assert abs(theirs - right) > 1e-3


def test_recall_averages_over_the_text_and_not_over_the_prefix(recall, tokenizer, tuned, some, loss_from):
    """mia_llms_benchmark averages the conditional loss over prefix and text: over short texts mostly the prefix."""
    ours, _ = recall
    for score, example in zip(ours.tolist(), some, strict=True):
        ids = example.input_ids.tolist()
        whole = [BOS, *note(tokenizer), *ids[1:]]
        theirs = loss_from(tuned, whole) / loss_from(tuned, ids)
        assert score == pytest.approx(
            loss_from(tuned, whole, len(whole) - len(ids) + 1) / loss_from(tuned, ids), rel=2e-5
        )
        assert abs(theirs - score) > 0.02


def test_recall_is_a_ratio_of_two_log_likelihoods_and_high_for_members(recall):
    """mimir divides a log-likelihood by a loss: the ratio with a minus sign, reversed again by low = member."""
    ours, _ = recall
    theirs = -ours
    member = torch.tensor([True, False] * 3)
    assert (ours > 0).all()
    assert auroc(theirs, member).value == pytest.approx(1 - auroc(ours, member).value)


def test_no_token_is_added_that_the_model_does_not_know(prober, tokenizer, tuned, some, loss_from, monkeypatch):
    """mimir adds a token [PAD] without resizing: IndexError if vocabulary and embeddings have the same size."""
    padded = copy.deepcopy(tokenizer)
    padded.add_special_tokens({"pad_token": "[PAD]"})
    known = tuned.get_input_embeddings().weight.shape[0]
    assert padded.pad_token_id == known
    with pytest.raises(IndexError), torch.no_grad():
        tuned(input_ids=torch.tensor([[BOS, padded.pad_token_id]]))

    made = {e.record.text: [e.record.text.upper(), e.record.text + " twice"] for e in some}
    replacer = SimpleNamespace(versions=lambda text, *_: made[text], model=torch.nn.Identity())
    monkeypatch.setattr(neighbourhood, "WordReplacer", lambda _: replacer)
    for example in some:
        example.record.text = tokenizer.decode(example.input_ids[1:])
        made[example.record.text] = [example.record.text.upper(), example.record.text + " twice"]
    asked, attack = prober(tokenizer, tuned, some), neighbourhood.Neighbourhood("a stand-in", neighbours=2)
    attack.prepare(asked)
    ours = attack(TokenScorer(tuned)(collate(some)))
    assert max(int(batch["input_ids"].max()) for batch in asked.asked) < known
    for score, example in zip(ours.tolist(), some, strict=True):
        of_neighbours = [loss_from(tuned, tokenizer(text)["input_ids"]) for text in made[example.record.text]]
        assert score == pytest.approx(sum(of_neighbours) / 2 - loss_from(tuned, example.input_ids), abs=1e-4)


def test_the_gradient_norm_is_one_norm_over_all_weights(prober, tokenizer, tuned, some):
    """mimir and open-unlearning average the norms of tensors, which depends on how weights are split into tensors."""
    attack = GradientNorm()
    attack.prepare(prober(tokenizer, tuned, some))
    ours = attack(TokenScorer(tuned)(collate(some)))
    for score, example in zip(ours.tolist(), some, strict=True):
        tuned.zero_grad()
        tuned(input_ids=example.input_ids[None], labels=example.labels[None]).loss.backward()
        gradients = [p.grad.double().flatten() for p in tuned.parameters() if p.grad is not None]
        right = torch.cat(gradients).norm().item()
        theirs = torch.stack([g.norm() for g in gradients]).mean().item()
        halves = torch.stack([half.norm() for g in gradients for half in g.chunk(2)]).mean().item()
        assert score == pytest.approx(-right, rel=1e-4)  # higher = member: members have smaller gradients
        assert theirs < 0.9 * right
        assert halves < 0.9 * theirs


def test_the_lower_case_attack_divides_log_perplexities(prober, tokenizer, tuned, example_of, loss_from):
    """Carlini et al. and LM_Memorization divide log-perplexities; LLM-PBE divides perplexities, low = member."""
    example = example_of("The Patient recovered at St. Mary Hospital in May")
    attack = Lowercase()
    attack.prepare(prober(tokenizer, tuned))
    score = attack(TokenScorer(tuned)(collate([example]))).item()
    loss, lower = (
        loss_from(tuned, example.input_ids),
        loss_from(tuned, tokenizer(example.record.text.lower())["input_ids"]),
    )
    theirs = math.exp(loss) / math.exp(lower)
    assert score == pytest.approx(lower / loss, rel=2e-5)
    assert abs(1 / theirs - score) > 0.1
