"""Bases whose files and config.json do not match, wherever a base is loaded."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lit_mem import assets
from lit_mem.adapters.loaded_weights import grouped
from lit_mem.attacks.word_replacement import WordReplacer
from lit_mem.errors import ModelError
from lit_mem.models.base_models import load_base, load_base_in_parts
from lit_mem.scoring.reference_scores import Reference

TINY = "asset:tiny_llama"
DEEPER = r"its files lack 18 of 56 weights .*\(model\.layers\.\{4,5\}\.input_layernorm\.weight"


@pytest.fixture
def copied(tmp_path):
    """Copies the bundled model with a changed config.json and changed weights."""

    def make(config=(), change=None):
        folder = tmp_path / "model"
        shutil.copytree(assets.path("tiny_llama"), folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(config)))
        if change is not None:
            weights = load_file(folder / "model.safetensors")
            change(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("config", "change", "complaint"),
    [
        ({"num_hidden_layers": 6}, None, DEEPER),
        ({}, lambda w: w.pop("model.norm.weight"), r"its files lack 1 of 38 weights .*\(model\.norm\.weight\)"),
        ({}, lambda w: w.pop("model.embed_tokens.weight"), r"lack \d of 38 .*model\.embed_tokens\.weight"),
        ({"tie_word_embeddings": False}, None, r"lack 1 of 39 weights .*\(lm_head\.weight\)"),
        (
            {"intermediate_size": 96},
            None,
            r"model\.layers\.0\.mlp\.down_proj\.weight is \(128, 384\) in its files, but \(128, 96\) .*and 11 more",
        ),
    ],
)
def test_a_base_that_is_not_whole_is_rejected(config, change, complaint, copied):
    with pytest.raises(ModelError, match=complaint):
        load_base(copied(config, change))


def test_so_is_one_read_in_parts_without_advice_to_read_it_whole(copied):
    with pytest.raises(ModelError, match=DEEPER) as caught:
        load_base_in_parts(copied({"num_hidden_layers": 6}), None, "float32", None, None, torch.device("cpu"))
    assert "ddp" not in str(caught.value)


def test_what_is_named_otherwise_cannot_be_read_in_parts(copied):
    def rename(weights):
        weights["model.final.weight"] = weights.pop("model.norm.weight")

    with pytest.raises(ModelError, match=r"not hold model\.norm\.weight under this name, but model\.final\.weight"):
        load_base_in_parts(copied(change=rename), None, "float32", None, None, torch.device("cpu"))


def test_so_is_a_reference_and_a_member_of_a_population(copied, module):
    deeper = copied({"num_hidden_layers": 6})
    with pytest.raises(ModelError, match=DEEPER):
        module(reference=Reference(model_id=deeper)).configure_model()
    with pytest.raises(ModelError, match=DEEPER):
        module().population([deeper])


def test_weights_that_the_model_has_no_place_for_are_named_once(copied, caplog):
    model = load_base(copied({"num_hidden_layers": 2}))
    assert len(model.model.layers) == 2
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("lit_mem")]
    assert "18 weights" in line
    assert "model.layers.{2,3}.input_layernorm.weight" in line


def test_a_tied_output_layer_may_be_missing_and_nothing_is_logged(copied, caplog):
    folder = copied()
    assert "lm_head.weight" not in load_file(f"{folder}/model.safetensors")  # or this shows nothing
    model = load_base(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not [record for record in caplog.records if record.name.startswith("lit_mem")]


def gemma3(folder):
    """A tiny Gemma 3 with a vision tower."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    config = transformers.Gemma3Config(
        text_config=text | {"num_attention_heads": 2, "num_key_value_heads": 1},
        vision_config=vision | {"image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def test_of_a_model_with_eyes_only_what_reads_text_must_be_there(tmp_path):
    gemma3(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    text = {name: tensor for name, tensor in weights.items() if "vision" not in name and "multi_modal" not in name}
    assert 0 < len(text) < len(weights)
    save_file(text, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load_base(str(tmp_path))
    text.popitem()
    save_file(text, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 of"):
        load_base(str(tmp_path))


def test_a_masked_language_model_without_its_head_proposes_no_words(tmp_path):
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fever", "rash"])}
    transformers.BertTokenizer(vocabulary).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"Neighbourhood\.masked_lm .* lack \d of \d+ weights .*cls\.predictions"):
        WordReplacer(str(tmp_path))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.1.b", "a.10.b", "a.2.b"], "a.{1,2,10}.b"),
        (["a.1.b", "c"], "a.1.b, c"),
        (["e", "d", "c", "b", "a"], "a, b, c, d and 1 more kinds"),
    ],
)
def test_names_are_grouped_by_number(names, expected):
    assert grouped(names) == expected
