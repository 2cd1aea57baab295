"""What "all-linear" and names of matrices mean in families of models other than LLaMA."""

import peft
import pytest
import torch
import transformers

from lit_mem.adapters import IA3, FullFineTuning, LoRA
from lit_mem.adapters.base import adapter_off
from lit_mem.adapters.targets import adapted_matrices
from lit_mem.errors import ConfigError, ModelError
from lit_mem.models.saved_adapter import load_adapter
from lit_mem.privacy.per_text import check_model

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SLIDING = {"head_dim": 4, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ATTENTION = "2 k_proj, 2 o_proj, 2 q_proj, 2 v_proj"
DENSE = "2 down_proj, 2 gate_proj, 2 k_proj, 2 o_proj, 2 q_proj, 2 up_proj, 2 v_proj"
CONFIGS = {
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **SIZES, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2
    ),
    "gemma3": lambda: transformers.Gemma3Config(
        text_config=SIZES | SLIDING,
        vision_config=EYES | {"image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
    ),
    "gemma3n": lambda: transformers.Gemma3nTextConfig(
        **(SIZES | SLIDING | {"intermediate_size": [24, 24]}),
        vocab_size_per_layer_input=64,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0, 0.0],
    ),
    "mamba": lambda: transformers.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4),
    "falcon_h1": lambda: transformers.FalconH1Config(
        **SIZES, mamba_d_ssm=16, mamba_n_heads=4, mamba_d_head=4, mamba_d_state=8, mamba_n_groups=1
    ),
    "llama4": lambda: transformers.Llama4TextConfig(
        **SIZES, intermediate_size_mlp=24, num_local_experts=2, head_dim=4, moe_layers=[1], attention_chunk_size=64
    ),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*[Tt]he fast path is not available"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
]


@pytest.fixture(scope="module")
def made():
    """Makes a tiny random model of a family, the same each time."""
    states = {}

    def make(name):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]())
        states.setdefault(name, {key: value.clone() for key, value in model.state_dict().items()})
        model.load_state_dict(states[name])
        return model.requires_grad_(False).eval()

    return make


def lora(*targets, **options):
    return LoRA(**({"rank": 2, "dropout": 0.0, "targets": list(targets)} | options))


def logits(model):
    return model(input_ids=torch.arange(3, 15)[None], use_cache=False).logits


def trained(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "matrices"),
    [
        ("mixtral", f"2 experts.down_proj, 2 experts.gate_up_proj, 2 gate.weight, {ATTENTION}"),
        ("qwen3_moe", f"2 experts.down_proj, 2 experts.gate_up_proj, 2 gate.weight, {ATTENTION}"),
        ("gemma3", DENSE),
        ("mamba", "2 in_proj, 2 x_proj"),
        ("gpt2", "2 c_attn, 2 c_fc, 4 c_proj"),
        ("falcon_h1", f"2 down_proj, 2 gate_proj, 2 in_proj, {ATTENTION.replace('2 v', '2 up_proj, 2 v')}"),
        ("llama4", DENSE),
    ],
)
def test_all_linear(family, matrices, made):
    base = made(family)
    before = logits(base)
    model = lora("all-linear").wrap(base)
    assert adapted_matrices(model) == matrices
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not [name for name in names if "vision" in name]
    logits(model).sum().backward()
    # Nothing of the adapter is bypassed: every part of it has a gradient.
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    with adapter_off(model) as off:
        assert torch.equal(logits(off), before)


@pytest.mark.filterwarnings("ignore:.*_pattern keys did not match any targeted module")  # peft's own call warns
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt2"])
def test_all_linear_is_what_peft_means_by_it(family, made):
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    config.fan_in_fan_out = family == "gpt2"
    theirs, ours = peft.get_peft_model(made(family), config), lora("all-linear").wrap(made(family))
    assert {n: p.shape for n, p in ours.named_parameters() if p.requires_grad} == {
        n: p.shape for n, p in theirs.named_parameters() if p.requires_grad
    }
    assert {n: m.scaling for n, m in ours.named_modules() if hasattr(m, "scaling")} == {
        n: m.scaling for n, m in theirs.named_modules() if hasattr(m, "scaling")
    }


def test_a_layer_named_by_a_number(made):
    model = lora("all-linear").wrap(made("gemma3n"))
    adapted = adapted_matrices(model).split(", ")
    assert {"1 altup_projections.0", "1 altup_unembed_projections.2", "2 q_proj"} <= set(adapted)
    assert not [name for name in adapted if "correction_coefs" in name or name.endswith(" 0")]
    logits(model).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert adapted_matrices(lora("altup_projections.0").wrap(made("gemma3n"))) == "1 altup_projections.0"


@pytest.mark.parametrize(
    ("targets", "layers", "matrices"),
    [
        (["q", "gate", "up", "down"], None, "2 experts.down_proj, 2 experts.gate_up_proj, 2 q_proj"),
        (["gate_up_proj"], None, "2 experts.gate_up_proj"),
        (["down", "v"], [1], "1 experts.down_proj, 1 v_proj"),
        (
            ["all-linear"],
            [0],
            f"1 experts.down_proj, 1 experts.gate_up_proj, 1 gate.weight, {ATTENTION}".replace("2 ", "1 "),
        ),
    ],
)
def test_experts_by_name_and_layer(targets, layers, matrices, made):
    assert adapted_matrices(lora(*targets, layers=layers).wrap(made("mixtral"))) == matrices


def test_the_size_of_an_adapter_counts_its_experts(made):
    # Attention of rank 1: q and o 32 each, k and v 24 each. Experts: 4 x (16 + 24) for down, 4 x (16 + 48) x 2 for
    # gate and up together; the router 16 + 4.
    cost = 2 * (32 + 32 + 24 + 24 + 4 * 40 + 4 * 64 * 2 + 20)
    assert trained(lora("all-linear", rank=1).wrap(made("mixtral"))) == cost
    model = lora("all-linear", parameters=3 * cost + 1).wrap(made("mixtral"))
    assert (model.peft_config["default"].r, trained(model)) == (3, 3 * cost)
    with pytest.raises(ConfigError, match=f"expected at least {cost}"):
        lora("all-linear", parameters=cost - 1).wrap(made("mixtral"))


def test_an_adapter_of_experts_comes_back(made, tmp_path):
    model = lora("all-linear").wrap(made("mixtral"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = logits(model.eval())
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    with torch.no_grad():
        assert not torch.equal(expected, logits(made("mixtral").eval()))
        assert torch.equal(logits(load_adapter(made("mixtral"), str(tmp_path)).eval()), expected)


@pytest.mark.parametrize(
    ("family", "adapter", "complaint"),
    [
        ("mixtral", lora("q", "gate"), "'gate', but gate and up of this model's experts are one matrix"),
        ("mixtral", lora("all-linear", dropout=0.05), "dropout is 0.05, .* set dropout to 0.0"),
        ("mixtral", lora("gate_up_proj", dora=True), "dora is True, .* set dora to false"),
        ("mixtral", lora("down", init="pissa"), "init is pissa"),
        (
            "mixtral",
            lora("nope"),
            "'nope', which this model does not have; expected some of down_proj, gate.weight, gate_up_proj",
        ),
        ("mamba", lora("out_proj"), "'out_proj', whose weight a mamba model reads directly"),
        ("mamba", IA3(targets=["dt_proj"]), "'dt_proj', whose weight a mamba model reads directly"),
    ],
)
def test_what_cannot_be_adapted_is_one_line(family, adapter, complaint, made):
    with pytest.raises(ConfigError, match=complaint):
        adapter.wrap(made(family))


def test_private_training_of_experts_is_rejected(made):
    with pytest.raises(ModelError, match="experts' matrices"):
        check_model(lora("all-linear").wrap(made("mixtral")))


@pytest.mark.parametrize(
    "adapter", [lora("q", "v"), lora("q", layers=[1]), IA3(), IA3(["all-linear"]), FullFineTuning()]
)
def test_of_a_multimodal_model_the_text_decoder_alone_is_trained(adapter, made):
    model = adapter.wrap(made("gemma3"))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names
    assert not [name for name in names if "vision" in name or "multi_modal" in name]
    logits(model).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("family", "matrices", "feedforward"), [("gemma3", DENSE, 2), ("gpt2", "2 c_attn, 2 c_fc, 4 c_proj", 0)]
)
def test_ia3_on_all_linear(family, matrices, feedforward, made):
    model = IA3(targets=["all-linear"]).wrap(made(family))
    assert adapted_matrices(model) == matrices
    assert sum(getattr(module, "is_feedforward", False) for module in model.modules()) == feedforward
