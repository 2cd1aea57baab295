"""Unprompted leaks: a model that has memorized one text generates it, and it is traced back to that text."""

import threading
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

import lit_mem
from lit_mem.audit import gather, tracing
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.measures import UnpromptedLeaks, unprompted
from lit_mem.audit.suite import suite
from lit_mem.errors import ConfigError
from lit_mem.functional.words import words
from lit_mem.models.base_models import load_base
from lit_mem.types import Sampling

TINY = "asset:tiny_llama"
OWN = ("verbatim_share", "longest_run", "texts_hit")


@pytest.fixture(scope="module")
def learned(tokenizer, texts):
    """The bundled model with an adapter that has memorized the text of its ninth member, and both sets."""
    torch.manual_seed(0)
    options = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_base(TINY), options)
    batch = tokenizer(texts[8], return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(**batch, labels=batch["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return SimpleNamespace(model=model.eval(), members=texts[:12], heldout=texts[12:], text=texts[8])


def measured(learned, tokenizer, heldout=None, members_size=None, extra=(), **options):
    """The audit's metrics in `leak/`, without the namespace."""
    found = lit_mem.audit(
        learned.model, tokenizer, [*learned.members, *extra], heldout or learned.heldout, suite="none", check=False,
        measures=[UnpromptedLeaks(**options)], members_size=members_size, folder=None,
    )  # fmt: skip
    assert not [name for name in found.rows.columns if name.startswith("leak/")]
    return {name.removeprefix("leak/"): value for name, value in found.metrics.items() if name.startswith("leak/")}


def generated(model, tokenizer, length):
    ids = torch.tensor([[tokenizer.bos_token_id]])
    model.generation_config.pad_token_id = 3
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length)
    return tokenizer.decode(out[0, 1:], skip_special_tokens=True)


def longest_common(left, right):
    """By brute force over pairs of positions."""
    pairs = [(i, j) for i in range(len(left)) for j in range(len(right))]

    def run(i, j):
        n = 0
        while i + n < len(left) and j + n < len(right) and left[i + n] == right[j + n]:
            n += 1
        return n

    return max((run(i, j) for i, j in pairs), default=0)


def test_greedy_from_the_start_it_writes_the_text_that_generate_writes(learned, tokenizer):
    found = measured(learned, tokenizer, sampling=None, openings=0, length=48, k=6)
    written = words(generated(learned.model, tokenizer, 48))
    longest = longest_common(written, words(learned.text))
    assert longest > 12
    assert found["longest_run"] == longest
    assert found["verbatim_share"] >= longest / len(written)
    assert found["texts_hit"] == 1
    assert [found[f"{own}_heldout"] for own in OWN] == [0, 0, 0]
    assert [found[f"{own}_base{of}"] for own in OWN for of in ("", "_heldout")] == [0] * 6


def test_sampled_texts_leak_too_and_a_text_that_is_not_scored_is_found(learned, tokenizer):
    found = measured(learned, tokenizer, members_size=1, n=3, openings=0, length=32)
    assert found["texts_hit"] >= 1
    assert found["verbatim_share"] > 0.2


def test_words_that_a_held_out_text_contains_are_not_a_leak(learned, tokenizer):
    options = {"sampling": None, "openings": 0, "length": 48, "k": 6}
    found = measured(learned, tokenizer, heldout=[*learned.heldout, learned.text], **options)
    assert [found[own] for own in OWN] == [0, 0, 0]
    assert [found[f"{own}_heldout"] for own in OWN] == [0, 0, 0]  # nor does it count for held-out texts


def test_a_prompt_of_the_users_own_is_gone_on_from(learned, tokenizer):
    half = learned.text[: len(learned.text) // 2]
    found = measured(
        learned, tokenizer, sampling=None, openings=0, bos=False, prompts=[half[: half.rindex(" ")]], length=48, k=6
    )
    assert found["longest_run"] >= 6
    assert found["longest_run"] <= len(words(learned.text)) - len(words(half)) + 1


def test_an_untuned_model_leaks_nothing_that_its_base_does_not(tokenizer, texts):
    model = get_peft_model(load_base(TINY), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    plain = SimpleNamespace(model=model, members=texts[:12], heldout=texts[12:])
    found = measured(plain, tokenizer, n=6, k=1, length=16, min_texts=2, opening_words=1)
    assert [found[f"{own}{of}"] for own in OWN for of in ("", "_heldout")] == [0] * 6
    assert found["verbatim_share_base"] > 0


def test_two_processes_find_what_one_finds(learned, tokenizer, monkeypatch):
    """Each generates every other text and reads every other member; two threads stand in for two processes."""
    options = {"n": 3, "openings": 2, "min_texts": 2, "opening_words": 1, "length": 32, "k": 4}
    options["sampling"] = Sampling(top_k=40)  # else rounding in another batch could change a draw
    alone = measured(learned, tokenizer, **options)
    here, barrier, shared = threading.local(), threading.Barrier(2), {}

    def gathered(mine):
        shared[here.rank] = mine
        barrier.wait()
        both = [shared[0], shared[1]]
        barrier.wait()
        return both

    for module in (gather, tracing, unprompted):
        monkeypatch.setattr(module, "gathered", gathered)
        monkeypatch.setattr(module, "ranks", lambda: (2, here.rank))
    together = {}

    def process(rank):
        here.rank = rank
        measure, subject = UnpromptedLeaks(**options), subjects[rank]
        measure.open(subject, None, fresh=True)
        measure.begin(subject)
        run = SimpleNamespace(subject=subject, stage="validate", checking=False, complete=True)
        together[rank] = measure.compute(run).metrics

    subjects = [_subject(learned, tokenizer) for _ in range(2)]
    threads = [threading.Thread(target=process, args=[rank]) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for metrics in (together[0], together[1]):
        assert {name.removeprefix("leak/"): v for name, v in metrics.items() if name != "time/leak"} == alone


def _subject(learned, tokenizer):
    from copy import deepcopy

    from lit_mem.audit.model_subject import ModelSubject

    everything = {True: learned.members, False: learned.heldout}
    return ModelSubject(deepcopy(learned.model), tokenizer, "adapter_off", everything=everything)


def test_prompts_that_lack_are_left_out_with_their_metrics(learned, tokenizer):
    assert measured(learned, tokenizer, bos=False, openings=3, min_texts=1000) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, r"UnpromptedLeaks\.n is 0; expected at least 1"),
        ({"k": 0}, r"UnpromptedLeaks\.k is 0"),
        ({"min_texts": 1}, r"UnpromptedLeaks\.min_texts is 1; expected at least 2"),
        ({"sampling": Sampling(temperature=0)}, r"UnpromptedLeaks\.sampling\.temperature"),
        ({"bos": False, "openings": 0}, r"openings 0 and prompts empty"),
    ],
)
def test_options_out_of_range_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        UnpromptedLeaks(**options)


def test_the_full_suite_has_it_and_the_others_have_not():
    for name, there in (("quick", False), ("standard", False), ("full", True)):
        made = suite(name, extraction=ExtractionOptions())
        assert any(isinstance(one, UnpromptedLeaks) for one in made) == there
    assert not any(isinstance(one, UnpromptedLeaks) for one in suite("full", extraction=None))
    (one,) = [one for one in suite("full", extraction=ExtractionOptions(), compares=False) if one.generates][1:]
    assert not one.base
