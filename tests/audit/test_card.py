"""The model card: valid for the Hub, consistent with the record, without texts and paths."""

import math
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from lit_mem.audit.card import model_card, state_of
from lit_mem.audit.card_facts import Facts, can_merge, public_name, vllm_obstacles, vllm_rank
from lit_mem.files.record import Line, Stop

STOP = Stop("memorization.stop", ["mia/reference_auroc > 0.7", "val/perplexity < 3"], "any", False)
METRICS = {
    "val/perplexity": 3.25,
    "memorization/perplexity_members": math.nan,
    "mia/reference_auroc": 0.8,
    "mia/reference_auroc_low": 0.75,
    "mia/reference_auroc_high": 0.85,
    "mia/loss_auroc": 0.5,
    "extraction/ngram_rate": 0.25,
    "extraction/ngram_rate_heldout": 0.2,
    "slice/ward/Oncology/mia_reference_auroc": 0.9,
}
LINE = Line("fit", 2, 40, 40, True, 20, 30, METRICS, {}, [STOP])
LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": {"v_proj", "q_proj"}, "bias": "none"}
FACTS = Facts(
    "org/model", {"light": "abc", "full": "def"}, "v1", "adapter", LORA, "org/notes", 100, 30, "adapter off",
    {"optimizer": "AdamW", "lr": 0.001},
)  # fmt: skip


def head(text):
    return yaml.safe_load(text.split("---\n")[1])


def cells(text):
    """Rows of the tables of a card, by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_hub_reads_the_metrics_and_their_intervals():
    card = ModelCard(model_card(LINE, FACTS))
    assert card.data.base_model == "org/model"
    assert card.data.library_name == "peft"
    assert {"lit_mem", "memorization", "lora", "base_model:adapter:org/model"} <= set(card.data.tags)
    assert card.data.datasets == ["org/notes"]
    results = {one.metric_type: one for one in card.data.eval_results}
    assert {name: one.metric_value for name, one in results.items()} == {
        name: METRICS[name]
        for name in ("val/perplexity", "mia/reference_auroc", "mia/loss_auroc", "extraction/ngram_rate")
    } | {"extraction/ngram_rate_heldout": 0.2}
    assert results["mia/reference_auroc"].metric_args == {"interval_95_low": 0.75, "interval_95_high": 0.85}
    assert {(one.task_type, one.dataset_name) for one in results.values()} == {("text-generation", "org/notes")}
    name, again = model_index_to_eval_results(head(model_card(LINE, FACTS))["model-index"])
    assert name == "model-lora"
    assert len(again) == len(results)


def test_limits_and_metrics_are_those_of_the_line():
    rows = cells(model_card(LINE, FACTS))
    assert rows["mia/reference_auroc > 0.7"] == ["0.800 [0.750, 0.850]", "**over**"]
    assert rows["val/perplexity < 3"] == ["3.250", "within"]
    assert rows["mia/reference_auroc"][:2] == ["0.800", "[0.750, 0.850]"]
    assert rows["memorization/perplexity_members"][0] == "not measured"
    assert rows["Weights"] == ["after epoch 2, step 40"]
    assert rows["Base model"] == ["`org/model`, revision `v1`"]
    assert rows["Fine-tuned on"] == ["`org/notes`: 100 texts (members), 30 held out"]
    assert "slice/ward" not in model_card(LINE, FACTS)
    assert state_of(LINE)[0] == "over"
    assert state_of(replace(LINE, metrics=METRICS | {"mia/reference_auroc_low": 0.6}))[0] == "undecided"
    assert state_of(replace(LINE, stop=[])) == state_of(None) == (None, [])


def test_a_metric_of_a_limit_is_in_the_card_whatever_its_name():
    stop = replace(STOP, thresholds=["my/own > 1"])
    text = model_card(replace(LINE, metrics=METRICS | {"my/own": 2.0}, stop=[stop]), FACTS)
    assert cells(text)["my/own"][0] == "2"
    assert "my/own" in {one.metric_type for one in ModelCard(text).data.eval_results}


def test_what_was_tested_and_what_not():
    def sections(text):
        return text.partition("## Tested")[2].partition("## Before")[0].split("## Not tested")

    yes, no = sections(model_card(LINE, FACTS))
    assert "(loss, reference)" in yes
    assert "greedy decoding" in yes
    for what in ("canaries: ", "marked spans", "differential privacy"):
        assert what in no
    tested = METRICS | {"canary/auroc": 0.5, "extraction/span_rate": 0.0}
    yes, no = sections(model_card(replace(LINE, metrics=tested), replace(FACTS, privacy=(8.0, 1e-5))))
    for what in ("canaries: ", "marked spans", "differential privacy"):
        assert what in yes
    private = model_card(LINE, replace(FACTS, privacy=(8.0, 1e-5)))
    assert cells(private)["Differential privacy"][0].startswith("ε = 8 at δ = 1e-05")
    assert "does not cover metrics of members" in private
    assert "does not cover metrics of members" not in model_card(LINE, FACTS)


def test_unmeasured_weights_have_no_metrics():
    text = model_card(None, FACTS)
    assert "model-index" not in head(text)
    assert "Not measured" in text
    assert "Nothing." in text.partition("## Tested")[2]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("org/model", "org/model"),
        ("gpt2", "gpt2"),
        ("asset:tiny_llama", "tiny_llama"),
        ("/home/ann/ward 7/llama", "llama"),
        ("~/models/llama/", "llama"),
        ("./llama", "llama"),
        ("notes/patients.jsonl", "patients.jsonl"),
        ("models/x.gguf", "x.gguf"),
        (r"C:\Users\ann\llama", "llama"),
        ("/c/hub/models--org--model/snapshots/1f", "org/model"),
    ],
)
def test_a_place_on_this_machine_is_named_without_its_path(name, shown):
    assert public_name(name) == shown


def test_a_card_has_no_path(tmp_path):
    base, data = tmp_path / "secret" / "llama", tmp_path / "ward" / "notes.jsonl"
    base.mkdir(parents=True)
    for form in ("adapter", "merged", "model"):
        text = model_card(LINE, replace(FACTS, base=str(base), data=str(data), form=form))
        assert str(tmp_path) not in text
        assert "ward" not in text
        assert head(text)["base_model"] == "llama"
        assert head(text)["library_name"] == ("peft" if form == "adapter" else "transformers")
        assert "datasets" not in head(text)


@pytest.mark.parametrize(
    ("options", "obstacle"),
    [
        ({}, None),
        ({"peft_type": "VERA"}, "the method is VERA"),
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is set"),
        ({"bias": "all"}, "bias is all"),
        ({"r": 600}, "the rank is 600"),
    ],
)
def test_what_vllm_does_not_load_is_named(options, obstacle):
    found = vllm_obstacles(LORA | options)
    text = model_card(LINE, replace(FACTS, adapter=LORA | options))
    assert ("vLLM does not load" in text) is (obstacle is not None)
    assert found == [] if obstacle is None else obstacle in found[0] and obstacle in text


def test_the_rank_that_vllm_needs():
    assert [vllm_rank(LORA | {"r": r}) for r in (1, 16, 17, 64, 65, 512)] == [16, 16, 32, 64, 128, 512]
    assert not can_merge({"peft_type": "PREFIX_TUNING"})
    assert can_merge(LORA)


def test_warnings_on_the_texts_stand_beside_the_metrics():
    warned = model_card(
        LINE, replace(FACTS, warnings=("A text-only classifier separates members from held-out rows.",))
    )
    assert (
        "**Warning.** A text-only classifier separates members from held-out rows."
        in warned.partition("## Memorization")[2]
    )
    assert "**Warning.**" not in model_card(LINE, FACTS)
