"""What is known about an adapter without a forward pass."""

import peft
import pytest
import torch

from lit_mem.adapters.base import changes_nothing
from lit_mem.models.base_models import load_base

# The bundled model's output layer is its embedding; nothing is merged or converted here.
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")


def wrapped(config):
    return peft.get_peft_model(load_base("asset:tiny_llama", None, "float32"), config).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40)[None], use_cache=False).logits


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["v_proj", "o_proj"]},
        {"target_modules": "all-linear", "use_rslora": True, "lora_dropout": 0.1},
        {"target_modules": ["gate_proj", "q_proj"], "init_lora_weights": "gaussian"},
    ],
)
def test_plain_lora_changes_nothing_until_its_second_matrix_does(options):
    base = logits(load_base("asset:tiny_llama", None, "float32"))
    model = wrapped(peft.LoraConfig(task_type="CAUSAL_LM", r=4, **options))
    assert changes_nothing(model)
    assert torch.equal(logits(model), base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.requires_grad_(False)  # frozen counts as much as trained
            parameter.data.view(-1)[-1] = 0.5
            assert not changes_nothing(model)
            assert not torch.equal(logits(model), base)
            break


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(target_modules=["v_proj"], use_dora=True),
        peft.LoraConfig(target_modules=["v_proj"], bias="all"),
        peft.LoraConfig(target_modules=["v_proj"], init_lora_weights="pissa"),
        peft.LoraConfig(target_modules=["v_proj"], init_lora_weights=False),
        peft.LoraConfig(target_modules=["v_proj"], modules_to_save=["lm_head"]),
        peft.LoraConfig(target_modules=["v_proj", "embed_tokens"]),
        peft.LoraConfig(target_modules=["v_proj"], trainable_token_indices=[3]),
        peft.IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"]),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ],
    ids=lambda config: type(config).__name__,
)
def test_of_all_other_adapters_nothing_is_known(config):
    config.task_type = "CAUSAL_LM"
    assert not changes_nothing(wrapped(config))


def test_a_model_without_an_adapter_is_not_known_to_be_its_base():
    assert not changes_nothing(load_base("asset:tiny_llama", None, "float32"))


def test_a_first_matrix_that_is_not_finite_changes_something():
    model = wrapped(peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["v_proj"], r=4))
    next(p for name, p in model.named_parameters() if "lora_A" in name).data[0, 0] = torch.inf
    assert not changes_nothing(model)
