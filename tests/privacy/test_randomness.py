"""Randomness in train mode is rejected or turned off before a private step."""

import json
import logging
import shutil

import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, OPTConfig, OPTForCausalLM

from lit_mem import assets
from lit_mem.adapters import LoRA
from lit_mem.errors import ConfigError, ModelError
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.private_options import reject_experts
from lit_mem.privacy import DPSGD
from lit_mem.privacy.per_text import PerTextGradients
from lit_mem.privacy.randomness import SamplingOff, samplers

QUICK = {"noise_multiplier": 1.0, "batch_size": 6, "accountant": "rdp", "test_seed": 3}
QUIET = {"num_sanity_val_steps": 0, "limit_val_batches": 0, "max_epochs": 1}


def loss_of(model, mean_losses):
    losses = mean_losses(model)
    return lambda ids, labels: losses({"input_ids": ids, "labels": labels})


def check(model, mean_losses):
    return PerTextGradients(model).check(loss_of(model, mean_losses))


def opt():
    shape = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    made = OPTForCausalLM(OPTConfig(**shape, word_embed_proj_dim=32, layerdrop=0.4, dropout=0.2, attention_dropout=0.3))
    return LoRA(rank=2, targets=["q_proj"], dropout=0.0).wrap(made.requires_grad_(False)).train()


# -- the adapter's dropout is an option: rejected -----------------------------------------------------------


@pytest.mark.parametrize("dropout", [1e-6, 0.05, 0.5])
def test_dropout_of_the_adapter_is_rejected_before_the_model_is_loaded(dropout, module, data, trainer):
    made = module(dropout=dropout, privacy=DPSGD(**QUICK))
    made.configure_model = lambda: pytest.fail("the model was loaded first")
    with pytest.raises(
        ConfigError, match=rf"model\.adapter\.dropout is {dropout:g}, .*adapter\.init_args\.dropout 0\)"
    ):
        trainer([], **QUIET).fit(made, data())


def test_dropout_that_an_adapter_of_ones_own_brings_is_rejected_too(fresh_llama):
    model = LoRA(rank=2, dropout=0.05).wrap(fresh_llama)
    with pytest.raises(ConfigError, match=r"adapter's dropout \(.*v_proj\.lora_dropout\.default\) is 0\.05"):
        SamplingOff(model)
    assert all(sampler.adapter for sampler in samplers(model))


# -- dropout that comes with the weights: turned off -------------------------------------------------------


def test_everything_that_samples_is_turned_off_and_restored(mean_losses):
    model = opt()
    names = {sampler.name.rpartition(".")[2] for sampler in samplers(model)}
    assert {"dropout", "layerdrop", "attention_dropout"} <= names
    with pytest.raises(ModelError):
        check(model, mean_losses)
    off = SamplingOff(model)
    assert samplers(model) == []
    assert "layerdrop 0.4" in off.summary()
    assert check(model, mean_losses) <= 1e-5  # it still draws a number for each layer, which decides nothing
    off.restore()
    assert {s.name: s.value for s in samplers(model)} == {s.name: s.value for s in off.found}


@pytest.fixture
def with_attention_dropout(tmp_path):
    """The bundled model's folder, with dropout of the attention in its configuration."""
    folder = tmp_path / "model"
    shutil.copytree(assets.path("tiny_llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.3}))
    return folder


def test_dropout_of_the_base_is_turned_off_for_the_fit(with_attention_dropout, data, trainer, trained, caplog):
    weights = []
    for model_id in ("asset:tiny_llama", str(with_attention_dropout)):
        torch.manual_seed(1)
        model = CausalLM(model_id=model_id, adapter=LoRA(rank=2, dropout=0.0), privacy=DPSGD(**QUICK))
        with caplog.at_level(logging.INFO, "lit_mem"):
            trainer([], **QUIET).fit(model, data())
        weights.append(trained(model))
    assert "attention_dropout 0.3" in caplog.text
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert {sampler.value for sampler in samplers(model)} == {0.3}  # as it was


@pytest.mark.slow
@pytest.mark.exhaustive
def test_dropout_of_an_adapter_from_a_folder_is_turned_off(base, data, trainer, tmp_path, caplog):
    LoRA(rank=2, dropout=0.25).wrap(base).save_pretrained(tmp_path / "adapter")
    privacy = DPSGD(**QUICK, allow_unaccounted_start=True)
    model = CausalLM(model_id="asset:tiny_llama", adapter_path=str(tmp_path / "adapter"), privacy=privacy)
    with caplog.at_level(logging.INFO, "lit_mem"):
        trainer([], **QUIET).fit(model, data())
    assert "lora_dropout.default 0.25" in caplog.text
    assert {sampler.value for sampler in samplers(model)} == {0.25}


# -- the check at the start finds what no list of names has ------------------------------------------------


def test_noise_on_embeddings_is_found(tuned, mean_losses):
    """As NEFTune adds it, by a hook and with no module of its own."""
    model = tuned()
    noise = lambda layer, inputs, output: output + 1e-4 * torch.randn_like(output)  # noqa: E731
    model.get_base_model().get_input_embeddings().register_forward_hook(noise)
    assert samplers(model) == []
    with pytest.raises(ModelError, match="differ under another random seed"):
        check(model, mean_losses)


def test_dropout_that_was_not_turned_off_is_found(fresh_llama, mean_losses):
    model = LoRA(rank=2, dropout=0.05).wrap(fresh_llama.requires_grad_(False)).train()
    with pytest.raises(ModelError, match=r"lora_dropout\.default is 0\.05.*clipping_norm"):
        check(model, mean_losses)


class Leaky(nn.Module):
    """Sees another text of the batch only where there are three or more, as a limit on tokens does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x * (1 + 0.1 * (len(x) > 2)))


def test_a_text_whose_gradient_depends_on_how_many_there_are_is_found(tuned, mean_losses):
    model = tuned()
    layer = model.get_base_model().model.layers[1]
    layer.mlp.act_fn = Leaky(layer.mlp.act_fn)
    with pytest.raises(ModelError, match="the gradient of a text in a batch is not"):
        check(model, mean_losses)


class Counting(nn.Module):
    """Keeps a running mean over all inputs, as observers and moving averages do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen.lerp_(x.detach().mean(), 0.1)
        return self.inner(x)


@pytest.mark.slow
def test_a_state_of_the_texts_is_found(tuned, mean_losses):
    model = tuned()
    layer = model.get_base_model().model.layers[1]
    layer.mlp.act_fn = Counting(layer.mlp.act_fn)
    with pytest.raises(ModelError, match=r"keeps a state of its training texts .*act_fn\.seen changes"):
        check(model, mean_losses)


def test_experts_see_one_text_at_a_time():
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    model = MixtralForCausalLM(
        MixtralConfig(
            **shape, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, router_jitter_noise=0.1
        )
    )
    with pytest.raises(ConfigError, match=r"data\.batch_size is 8, .*mixture of experts .*expected 1"):
        reject_experts(model, 8)
    reject_experts(model, 1)
    assert any("jitter_noise" in sampler.name for sampler in samplers(model))
