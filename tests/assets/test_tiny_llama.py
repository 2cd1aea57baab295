"""The bundled model: the manifest is correct, and pretraining is reproducible."""

import functools
import hashlib
import itertools
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lit_mem.assets import path
from tools.bundled_assets import corpus, make, pretrain


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((make.HERE / "manifest.json").read_text("ascii"))
    return loaded


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(path("tiny_llama"))


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(path("tiny_llama"), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def heldout() -> list[str]:
    lines = (path("case_reports") / "heldout.jsonl").read_text("ascii").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_manifest_lists_every_file_with_its_hash(manifest):
    found = {
        file.relative_to(make.HERE).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for name in ("case_reports", "notes", "tiny_llama")
        for file in path(name).iterdir()
    }
    assert found == manifest["files"]


def test_corpus_only_leaves_what_the_manifest_says_of_the_model(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    make.main(["--out", str(tmp_path), "--corpus-only"])
    rebuilt = json.loads((tmp_path / "manifest.json").read_text())
    assert rebuilt["model"] == manifest["model"]
    reports = {name for name in manifest["files"] if name.startswith(("case_reports/", "notes/"))}
    assert rebuilt["files"] == {name: manifest["files"][name] for name in reports}


@pytest.mark.slow
@pytest.mark.exhaustive
@torch.no_grad()
def test_heldout_perplexity_is_what_the_manifest_says(model, tokenizer, manifest, heldout):
    nats, n_tokens = 0.0, 0
    for text in heldout:  # one by one: rules out padding and batching
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        nats += model(input_ids=ids, labels=ids).loss.item() * (ids.numel() - 1)
        n_tokens += ids.numel() - 1
    expected = manifest["model"]["perplexity"]["case_reports_heldout"]
    assert math.exp(nats / n_tokens) == pytest.approx(expected, rel=1e-3)


def test_the_model_knows_its_world(manifest):
    perplexity = manifest["model"]["perplexity"]
    bound = perplexity["pretraining_heldout_entropy_bound"]
    assert 0.97 * bound < perplexity["pretraining_heldout"] < 1.15 * bound
    # No split of the case reports is known better than another before fine-tuning.
    splits = [perplexity[f"case_reports_{split}"] for split in corpus.SPLIT_SIZES]
    assert max(splits) < 1.03 * min(splits)


def test_special_tokens_agree(model, tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(pretrain.SPECIAL_TOKENS)) == [0, 1, 2, 3]
    for ids in (tokenizer, model.config, model.generation_config):
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == (1, 2, 3)
    assert len(tokenizer) == model.config.vocab_size == pretrain.VOCAB_SIZE


def test_a_text_begins_with_bos_and_splits_digits(tokenizer):
    ids = tokenizer("MR-482913, aged 54")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    digits = [t for t in tokenizer.convert_ids_to_tokens(ids) if any(c.isdigit() for c in t)]
    assert [t.strip("\u0120") for t in digits] == list("48291354")


@given(st.text())
def test_any_text_survives_the_tokenizer(text):
    tokenizer = _tokenizer()
    if any(token in text for token in pretrain.SPECIAL_TOKENS):
        return
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("text", ["a , b . c ' d", "don 't", " two  spaces ", "Zo\u00eb 5\u00b5g\n"])
def test_no_space_is_cleaned_up(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@functools.cache
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(path("tiny_llama"))


@torch.no_grad()
def test_greedy_text_is_readable_and_ends(model, tokenizer):
    prompt = tokenizer("We report a 45-year-old woman,", return_tensors="pt")
    out = model.generate(**prompt)[0]
    assert out[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(out, skip_special_tokens=True)
    assert text.isascii()
    assert text.endswith(".")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_short_pretraining_is_deterministic_and_lowers_the_loss(tokenizer):
    stream = corpus.pretraining_texts(7, avoid=())
    texts = [text.text for text in itertools.islice(stream, 256)]
    examples = pretrain.encode(tokenizer, texts)
    schedule = pretrain.Schedule(steps=12, batch_size=16)
    state = torch.get_rng_state()
    one, losses = pretrain.pretrain(examples, schedule, seed=3)
    two, again = pretrain.pretrain(examples, schedule, seed=3)
    assert losses == again
    assert losses[-1] < losses[0] - 1.0
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(state, torch.get_rng_state())  # the caller's random state is unchanged


def test_padding_changes_no_perplexity(model, tokenizer, heldout):
    examples = pretrain.encode(tokenizer, heldout[:20])
    one_by_one = pretrain.perplexity(model, examples, batch_size=1)
    assert pretrain.perplexity(model, examples, batch_size=20) == pytest.approx(one_by_one, rel=1e-5)


def test_perplexity_of_nothing_is_rejected(model):
    with pytest.raises(ValueError, match="no examples"):
        pretrain.perplexity(model, [])


def test_too_few_examples_are_rejected():
    with pytest.raises(ValueError, match="do not fill"):
        pretrain.pretrain([[1, 5, 2]], pretrain.Schedule(steps=1, batch_size=2), seed=0)


def test_a_large_model_is_stored_in_bfloat16(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(pretrain, "MAX_FLOAT32_BYTES", 1)
    config = pretrain.tiny_llama_config()
    config.num_hidden_layers = 1
    pretrain.save(LlamaForCausalLM(config), tokenizer, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
