"""A model's configuration is untrusted: what it may set, and the cost of checking it."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForMaskedLM

from lit_mem import assets
from lit_mem.attacks.word_replacement import WordReplacer
from lit_mem.cli.main import main
from lit_mem.data.encoding import Encoder
from lit_mem.errors import LitMemError
from lit_mem.extraction.encoder import _load
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

TINY = "asset:tiny_llama"


@pytest.fixture
def hostile(tmp_path):
    """A function from options to the bundled model with these in its config.json."""

    def make(options=None, files=None):
        folder = tmp_path / "model"
        shutil.copytree(assets.path("tiny_llama"), folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (options or {})))
        for name, content in (files or {}).items():
            (folder / name).write_text(content)
        return str(folder)

    return make


def rejected(load):
    """The error line for a hostile file."""
    with pytest.raises(LitMemError) as error:
        load()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize(
    "choice",
    [
        {"_attn_implementation": "eager"},
        {"attn_implementation": "eager"},
        {"_attn_implementation": "someone/their-kernel"},
        {"attn_implementation": "someone/their-kernel@main:attention", "experts_implementation": "batched_mm"},
        {"_experts_implementation": "batched_mm", "_attn_implementation_internal": "someone/their-kernel"},
    ],
)
def test_a_model_does_not_choose_its_kernels(choice, attention, hostile):
    model = load_base(hostile(choice), attention=attention)
    expected = load_base(TINY, attention=attention)
    for name in ("_attn_implementation", "_experts_implementation"):
        assert getattr(model.config, name) == getattr(expected.config, name)
    ids = torch.arange(1, 9)[None]
    assert torch.equal(model.eval()(input_ids=ids).logits, expected.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_does_not_choose_its_precision(dtype, hostile):
    assert load_base(hostile({"dtype": dtype, "torch_dtype": dtype})).dtype == torch.float32


@pytest.mark.parametrize(
    "found",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "fp8"},
        {"quant_method": "nope"},
        {},
        "x",
    ],
)
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_model_does_not_choose_its_quantization(key, found, hostile):
    line = rejected(lambda: load_base(hostile({key: found})))
    assert f"config.json: {key} is " in line
    assert "model.quantization is none" in line


@pytest.mark.parametrize(
    "options",
    [
        {"num_hidden_layers": 1_000_000},
        {"num_hidden_layers": 10**400},
        {"vocab_size": 10**9},
        {"hidden_size": 2**20, "head_dim": 64},
        {"intermediate_size": 10**9},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"model_type": "mixtral", "num_local_experts": 10**9, "architectures": ["MixtralForCausalLM"]},
        {"model_type": "gpt2", "max_position_embeddings": 10**9, "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "gpt2", "n_layer": 10**7},
    ],
)
def test_a_model_larger_than_its_weights_is_rejected_before_it_is_made(options, hostile):
    line = rejected(lambda: load_base(hostile(options)))
    assert "config.json: " in line
    assert "expected configuration and weights of one model" in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a": ' + "[" * 150 + "]" * 150 + "}", "nested too deeply"),
        (json.dumps({"a": "x" * 5_000_000}), "bytes; expected fewer"),
        ("{", "invalid JSON"),
    ],
)
@pytest.mark.parametrize("name", ["config", "tokenizer_config", "special_tokens_map", "added_tokens"])
def test_a_hostile_file_is_rejected_by_name(name, content, says, hostile):
    folder = hostile(files={f"{name}.json": content})
    line = rejected(lambda: load_base(folder) if name == "config" else load_tokenizer(folder))
    assert f"{name}.json: " in line
    assert says in line


@pytest.mark.parametrize("content", [[], {}, {"weight_map": [1]}, {"weight_map": {"a": 3}}, {"weight_map": {"a": "b"}}])
def test_a_hostile_index_of_weights_is_rejected(content, hostile, tmp_path):
    folder = hostile(files={"model.safetensors.index.json": json.dumps(content)})
    (tmp_path / "model" / "model.safetensors").unlink()
    rejected(lambda: load_base(folder))


def test_a_model_in_several_files_loads_from_the_hub_s_cache_off_the_network(tmp_path, monkeypatch):
    """Its cache lacks the one file that most models have."""
    folder = tmp_path / "models--org--model"
    snapshot = folder / "snapshots" / ("0" * 40)
    load_base(TINY).save_pretrained(snapshot, max_shard_size="2MB")
    assert not (snapshot / "model.safetensors").exists()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    ids = torch.arange(1, 9)[None]
    assert torch.equal(
        load_base("org/model").eval()(input_ids=ids).logits, load_base(TINY).eval()(input_ids=ids).logits
    )
    path = snapshot / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**6}))
    assert "num_hidden_layers is 1000000" in rejected(lambda: load_base("org/model"))


def test_other_models_that_a_measure_loads_are_checked_too(tmp_path):
    config = BertConfig(
        vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=32,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text((assets.path("tiny_llama") / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**6}))
    for load in (lambda: WordReplacer(str(tmp_path)), lambda: _load("option", str(tmp_path))):
        assert "num_hidden_layers is 1000000" in rejected(load)


def with_tokenizer(hostile, change):
    content = json.loads((assets.path("tiny_llama") / "tokenizer.json").read_text())
    return hostile(files={"tokenizer.json": json.dumps(content | change)})


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "normalizer",
    [
        replace({"String": "a"}, "a" * 1_000_000),
        {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aa")] * 24},
        {"type": "Sequence", "normalizers": [replace({"Regex": ""}, "a")] * 24},
        {"type": "Prepend", "prepend": "a" * 100_000},
    ],
)
def test_a_tokenizer_that_expands_texts_is_rejected(normalizer, hostile):
    folder = with_tokenizer(hostile, {"normalizer": normalizer})
    assert "times longer" in rejected(lambda: load_tokenizer(folder))


def test_a_tokenizer_that_panics_ends_in_a_line_without_texts(hostile):
    """What a library in Rust raises is no `Exception`."""
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    encoder = Encoder(load_tokenizer(with_tokenizer(hostile, {"pre_tokenizer": split})), 64, add_eos=True)
    columns = {"prompt": [""], "completion": ["a" * 60 + " secret!"], "origin": ["f, line 1"]}
    line = rejected(lambda: encoder(Dataset.from_dict(columns), 0, member=True, name="training"))
    assert "tokenizer" in line
    assert "secret" not in line


class PanicException(BaseException):
    """Of this name are those of `pyo3`."""


def test_a_panic_anywhere_in_a_command_is_one_line(monkeypatch, capsys):
    def panic(words):
        raise PanicException("byte index 3 is not a char boundary; it is inside of `a secret text`")

    monkeypatch.setattr("lit_mem.cli.report.main", panic)
    with pytest.raises(SystemExit) as stop:
        main(["report"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "char boundary" in line
    assert "secret" not in line
