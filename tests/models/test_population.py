"""A population of references against each of them loaded by itself."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import collate
from lit_mem.errors import ModelError
from lit_mem.models.base_models import load_base
from lit_mem.models.population import Population
from lit_mem.models.saved_adapter import load_adapter
from lit_mem.scoring.scorer import TokenScorer

TINY = "asset:tiny_llama"


def save_adapter(folder, seed, **options):
    """An adapter that peft saved, with weights that change the model."""
    generator = torch.Generator().manual_seed(seed)
    if "bias" in options:
        config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["v_proj"], **options)
        model = get_peft_model(load_base(TINY), config)
    else:
        model = LoRA(**({"rank": 2} | options)).wrap(load_base(TINY))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def adapters(tmp_path):
    return [
        save_adapter(tmp_path / "one", 1),
        save_adapter(tmp_path / "two", 2, rank=3, targets=["q", "down"]),
        save_adapter(tmp_path / "three", 3, rank=4, alpha=1.0, dora=True),
    ]


@pytest.fixture
def loads():
    """Loads bases, and records which."""

    class Loads(list):
        def __call__(self, model_id):
            self.append(model_id)
            return load_base(model_id or TINY)

    return Loads()


def alone(folder, batch):
    return TokenScorer(load_adapter(load_base(TINY), folder).eval())(batch).logprob


def test_each_adapter_scores_as_it_does_alone_on_one_copy_of_the_base(adapters, loads, batch):
    population = Population(adapters, loads)
    assert loads == [None]
    assert len(population) == 3
    result = population(batch)
    for folder, logprob in zip(adapters, result, strict=True):
        assert logprob.dtype == torch.float32
        assert logprob.shape == batch["input_ids"].shape
        assert torch.equal(logprob, alone(folder, batch))
    base = TokenScorer(load_base(TINY).eval())(batch).logprob
    for i, logprob in enumerate(result):
        assert (logprob - base).abs().max() > 0.01
        assert all((logprob - other).abs().max() > 0.01 for other in result[:i])


@pytest.mark.slow
def test_whole_models_stand_beside_adapters_in_the_order_given(adapters, loads, batch):
    population = Population([adapters[0], TINY, adapters[1]], loads)
    assert loads == [None, TINY]
    first, whole, last = population(batch)
    assert torch.equal(whole, TokenScorer(load_base(TINY).eval())(batch).logprob)
    assert torch.equal(first, alone(adapters[0], batch))
    assert torch.equal(last, alone(adapters[1], batch))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pissa", pytest.param("embeddings", marks=pytest.mark.slow)])
def test_an_adapter_that_changes_its_base_gets_a_copy_of_its_own(kind, adapters, tmp_path, loads, batch):
    if kind == "pissa":
        odd = save_adapter(tmp_path / "odd", 4, init="pissa")
    else:
        odd = save_adapter(tmp_path / "odd", 4)
        weights = load_file(f"{odd}/adapter_model.safetensors")
        key = "base_model.model.model.embed_tokens.weight"
        weights[key] = load_base(TINY).get_input_embeddings().weight.detach() * 2
        save_file(weights, f"{odd}/adapter_model.safetensors")
    result = Population([adapters[0], odd, adapters[1]], loads)(batch)
    assert loads == [None, None]
    for folder, logprob in zip([adapters[0], odd, adapters[1]], result, strict=True):
        assert torch.equal(logprob, alone(folder, batch))


def test_an_example_is_scored_once(adapters, loads, examples, monkeypatch):
    population = Population(adapters[:2], loads)
    first = population(collate(examples[:4]))
    monkeypatch.setattr(TokenScorer, "__call__", lambda *_: pytest.fail("scored again"))
    for a, b in zip(first, population(collate(examples[:4][::-1])), strict=True):
        assert torch.equal(a, b.flip(0))


@pytest.mark.slow
def test_it_is_frozen_and_in_eval_mode_and_draws_nothing(adapters, loads, batch):
    before = torch.get_rng_state()
    with torch.inference_mode():
        population = Population([*adapters, TINY], loads)
        inside = population(batch)
    assert torch.equal(torch.get_rng_state(), before)
    for scorer, _ in population._members:
        assert not any(module.training for module in scorer.model.modules())
        assert not any(p.requires_grad or p.is_inference() for p in scorer.model.parameters())
    for folder, logprob in zip(adapters, inside, strict=False):
        assert torch.equal(logprob, alone(folder, batch))


def broken(kind, folder):
    path, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "config":
        config.write_text("{")
    elif kind == "too few":
        weights = load_file(path)
        save_file(dict(list(weights.items())[2:]), path)
    elif kind == "too many":
        found = json.loads(config.read_text())
        config.write_text(json.dumps(found | {"target_modules": ["v_proj"]}))


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "has no adapter_model.safetensors; pickled weights are not loaded"),
        ("damaged", "is damaged or truncated"),
        ("config", "adapter_config.json: invalid JSON"),
        ("too few", "does not fit this base model"),
        ("too many", "does not fit this base model: it has"),
    ],
)
def test_a_broken_adapter_is_rejected_in_any_option(kind, message, first, adapters, tmp_path, loads):
    broken(kind, tmp_path / "one")
    order = adapters[:2] if first else adapters[1::-1]
    with pytest.raises(ModelError, match=message) as error:
        Population(order, loads)
    assert str(tmp_path / "one") in str(error.value)
    assert "model.adapter_path" not in str(error.value)
    assert ("references '" in str(error.value)) == (kind == "missing")  # others name the file, or the folder alone


def test_a_whole_model_with_a_smaller_vocabulary_is_rejected(batch):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    population = Population(["other"], lambda model_id: LlamaForCausalLM(config))
    with pytest.raises(ModelError, match="a reference has 50 tokens"):
        population(batch)
