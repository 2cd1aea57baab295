"""QLoRA: a base in 4 bits. Runs if bitsandbytes is installed (extra `quantization`), also without a GPU."""

import pytest
import torch
from torch.nn import functional as F

from lit_mem.adapters import LoRA
from lit_mem.adapters.base import adapter_off
from lit_mem.callbacks import Extraction, MembershipInference, Perplexity
from lit_mem.errors import ModelError
from lit_mem.guards import evaluation_mode
from lit_mem.models import base_models
from lit_mem.scoring.scorer import TokenScorer

bnb = pytest.importorskip("bitsandbytes")


@pytest.fixture(autouse=True, scope="module")
def on_a_processor():
    """bitsandbytes runs on a CPU, without repacking weights when they are first evaluated.

    From then on its gradients would be silently wrong (0.50.2), so 4 bits are rejected without a GPU.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_models, "_has_gpu", lambda: True)
        patch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
        yield


def quantized(bits="4bit"):
    return base_models.load_base("asset:tiny_llama", quantization=bits, device=torch.device("cpu"))


def packed(model):
    """The weights in 4 bits, by name."""
    return {name: m.weight.data.clone() for name, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}


def plain(model):
    """The same weights as a model in float32."""
    made = base_models.load_base("asset:tiny_llama")
    for name, layer in model.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            made.get_submodule(name).weight.data = weight.float()
    return made


@pytest.fixture(scope="module")
def fitted(module, data, trainer):
    """A run of two epochs, with its metrics before and after training."""
    measures = [Perplexity(), MembershipInference(), Extraction(n_members=4, n_heldout=4)]
    model, t = module(quantization="4bit"), trainer(measures)
    texts = data()
    t.validate(model, texts, verbose=False)
    before = dict(t.callback_metrics)
    t.fit(model, texts)
    return model, before, dict(t.callback_metrics)


def test_the_reference_is_the_quantized_base_to_the_last_bit_after_training_too(fitted, batch):
    model, before, after = fitted
    assert model._scored.reference.name == "the same weights, adapter off"
    assert before["mia/reference_auroc"] == 0.5
    assert after["mia/reference_auroc"] > 0.5
    base, ids = quantized().eval(), batch["input_ids"]
    with torch.no_grad(), adapter_off(model.language_model.eval()) as off:
        assert torch.equal(off(input_ids=ids).logits, base(input_ids=ids).logits)
    with torch.no_grad():
        assert not torch.equal(model.language_model(input_ids=ids).logits, base(input_ids=ids).logits)


def test_training_changes_the_adapter_alone_and_learns(fitted):
    model, before, after = fitted
    assert after["memorization/perplexity_members"] < before["memorization/perplexity_members"]
    base = packed(quantized())
    assert len(base) == 28
    found = packed(model.language_model)
    for name, weight in base.items():
        [same] = [w for other, w in found.items() if name in other.replace(".base_layer", "")]
        assert torch.equal(same, weight), name


def test_gradients_are_those_of_the_dequantized_weights(batch):
    gradients = []
    for base in (quantized(), plain(quantized())):
        torch.manual_seed(0)
        model = LoRA(rank=4, dropout=0.0, targets=["q", "v", "o", "down"]).wrap(base)
        for name, p in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(p, std=0.05)
        scorer = TokenScorer(model)
        with evaluation_mode(model):  # as before every training
            scorer(batch)
        scorer.loss(batch).backward()
        gradients.append({name: p.grad.flatten() for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert F.cosine_similarity(gradient, gradients[1][name], dim=0) > 0.99, name


def test_a_checkpoint_is_measured_as_the_run_was(fitted, module, data, trainer, tmp_path):
    model, _, after = fitted
    model.trainer.save_checkpoint(tmp_path / "a.ckpt")
    t = trainer([Perplexity(), MembershipInference(), Extraction(n_members=4, n_heldout=4)])
    t.validate(module(quantization="4bit"), data(), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=True)
    names = [name for name in after if name.startswith(("mia/", "memorization/", "extraction/"))]
    assert len(names) > 20
    assert {name: t.callback_metrics[name] for name in names} == {name: after[name] for name in names}


def test_eight_bits_are_silent_and_give_the_base_back(batch, caplog):
    base = quantized("8bit").eval()
    with torch.no_grad():
        before = base(input_ids=batch["input_ids"]).logits
        model = LoRA(rank=4).wrap(base).eval()
        with adapter_off(model) as off:
            assert torch.equal(off(input_ids=batch["input_ids"]).logits, before)
    assert not [record for record in caplog.records if "will be cast" in record.getMessage()]


def test_without_a_gpu_users_are_rejected(monkeypatch):
    monkeypatch.setattr(base_models, "_has_gpu", lambda: False)
    with pytest.raises(ModelError, match="quantization is 4bit, which needs a CUDA GPU"):
        quantized()
