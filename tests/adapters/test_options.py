"""An adapter's configuration is untrusted: what it may set, and the cost of checking it."""

import json
import shutil

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from lit_mem.adapters import patterns
from lit_mem.adapters.options import checked_config
from lit_mem.adapters.origin import adapter_config
from lit_mem.adapters.recorded import RecordedAdapter
from lit_mem.errors import CheckpointError, ModelError
from lit_mem.models.base_models import load_base
from lit_mem.models.saved_adapter import load_adapter

TINY = "asset:tiny_llama"
ENDLESS = "(.*)*!"
TARGETS = {"target_modules": ["q_proj", "v_proj"]}
VIRTUAL = {"num_virtual_tokens": 4}
METHODS = {kind.value: TARGETS for kind in PEFT_TYPE_TO_CONFIG_MAPPING} | {
    "PROMPT_TUNING": VIRTUAL | {"prompt_tuning_init": "SAMPLE_VOCAB"},
    "P_TUNING": VIRTUAL,
    "PREFIX_TUNING": VIRTUAL,
    "CARTRIDGE": VIRTUAL,
    "CPT": {"cpt_token_ids": [1, 2, 3], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 2]},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "IA3": {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "ADALORA": TARGETS | {"total_step": 10},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [1, 2]},
    "BOFT": TARGETS | {"boft_block_size": 4},
    "OFT": TARGETS | {"oft_block_size": 8},
    "C3A": TARGETS | {"block_size": 8},
    "VBLORA": TARGETS | {"vector_length": 8, "num_vectors": 16, "topk": 2},
    "LORA+dora": TARGETS | {"use_dora": True, "rank_pattern": {"q_proj": 2}},
    "LORA+olora": TARGETS | {"init_lora_weights": "olora"},
    "LORA+pattern": {"target_modules": r"(?i).*\.(q|v)_proj"},
    "LORA+copies": TARGETS | {"layer_replication": [[0, 2], [1, 4]]},
    "LORA+layers": TARGETS | {"layers_to_transform": [0], "layers_pattern": "layers"},
    "LORA+more": TARGETS | {"trainable_token_indices": [1, 2]},
}
# Those that name other models to load, tasks that a text does not have, or that read other texts of a batch.
QUICK = ("LORA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING", "VERA")
OTHERS = ("XLORA", "SHADOW", "MULTITASK_PROMPT_TUNING", "POLY", "LILY")


def saved(method, options, folder):
    """An adapter as peft saves it, its trained weights moved a little, and the model that it was saved from."""
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[method.partition("+")[0]]
    torch.manual_seed(0)
    model = peft.get_peft_model(load_base(TINY), kind(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
    model.save_pretrained(folder)
    return model


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 9)[None]).logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # peft's, of options and of methods that are experimental
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow) for m in sorted(METHODS.keys() - OTHERS)]
)
def test_an_adapter_of_each_method_loads_as_peft_loads_it(method, tmp_path):
    if method.partition("+")[0] not in {each.value for each in PEFT_TYPE_TO_CONFIG_MAPPING}:
        pytest.skip("not of this version of peft")
    saved(method, METHODS[method], tmp_path)
    virtual = peft.PeftConfig.from_pretrained(tmp_path).is_prompt_learning
    theirs = peft.PeftModel.from_pretrained(load_base(TINY), tmp_path, is_trainable=not virtual)
    ours = load_adapter(load_base(TINY), str(tmp_path))
    assert torch.equal(logits(ours), logits(theirs))
    assert not any(p.is_meta for p in [*ours.parameters(), *ours.buffers()])
    assert {n: p.dtype for n, p in ours.named_parameters()} == {n: p.dtype for n, p in theirs.named_parameters()}
    if not virtual:
        trained = [{n for n, p in model.named_parameters() if p.requires_grad} for model in (ours, theirs)]
        assert trained[0] == trained[1]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    saved("LORA", TARGETS, folder)
    return folder


@pytest.fixture
def hostile(adapter, tmp_path):
    """A function from options to a LoRA adapter that has them."""

    def make(options):
        folder = tmp_path / "hostile"
        shutil.copytree(adapter, folder)
        path = folder / "adapter_config.json"
        path.write_text(options if isinstance(options, str) else json.dumps(json.loads(path.read_text()) | options))
        return str(folder)

    return make


def rejected(load):
    """The error line for a hostile file."""
    with pytest.raises((ModelError, CheckpointError)) as error:
        load()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


HOSTILE = {
    "target_modules": [ENDLESS, "(.|.)" * 30 + "!", "(" * 5000, 3, {"q_proj": 1}, ["q_proj"] * 30_000, "(a)" * 20_000],
    "exclude_modules": [ENDLESS],
    "layers_pattern": [ENDLESS, [ENDLESS]],
    "rank_pattern": [{ENDLESS: 4}, {"q_proj": 10**9}, [1], {f"{n}.q_proj": 4 for n in range(25_000)}],
    "alpha_pattern": [{ENDLESS: 4}],
    "modules_to_save": [[ENDLESS], 3],
    "r": [10**9, 10**400, -(10**9), "8", True, [8], {"a": 8}],
    "lora_alpha": [float("inf"), float("nan"), "x"],
    "layer_replication": [[[0, 10**9]], [[0, 4]] * 1000, [[2, 0]], [["a", "b"]], [3], {"a": 1}],
    "init_lora_weights": ["pissa_niter_1000000000", "pissa_niter_" + "9" * 500, 7],
    "loftq_config": [{"loftq_iter": 10**9}, "x"],
    "megatron_config": [{"a": 1}, {}, "x"],
    "peft_type": [
        "XLORA",
        "SHADOW",
        "LILY",
        "MULTITASK_PROMPT_TUNING",
        "NOPE",
        None,
        ["LORA"],
        {},
        10**400,
        "x" * 10**6,
    ],
    "use_dora": ["yes", 3],
}


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, marks=pytest.mark.slow if i else [])
        for key, values in HOSTILE.items()
        for i, value in enumerate(values)
    ],
)
def test_a_hostile_option_of_an_adapter_is_rejected_by_name(key, value, hostile, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1.0)
    extra = {"layers_to_transform": [0]} if key == "layers_pattern" else {}
    line = rejected(lambda: load_adapter(load_base(TINY), hostile(extra | {key: value})))
    assert "adapter_config.json" in line
    assert key in line


@pytest.mark.parametrize(("key", "value"), [("target_modules", ENDLESS), ("r", 10**9), ("megatron_config", {"a": 1})])
def test_a_hostile_option_in_a_checkpoint_is_rejected_by_name(key, value, adapter, base, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1.0)
    options = adapter_config(str(adapter)) | {key: value}
    assert f"made_with.adapter: {key}" in rejected(lambda: RecordedAdapter(options).wrap(base))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PROMPT_TUNING", "PREFIX_TUNING", "VERA", "PEANUT"])
@pytest.mark.filterwarnings("ignore")
def test_a_method_that_makes_its_weights_at_once_is_bounded_too(method, tmp_path):
    key = {"PEANUT": "depth", "VERA": "r"}.get(method, "num_virtual_tokens")
    saved(method, METHODS[method], tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: 10**9}))
    assert f"{key} is 1000000000" in rejected(lambda: load_adapter(load_base(TINY), str(tmp_path)))
    more = {"token_dim": 10**9, "num_layers": 10**9, "num_transformer_submodules": 10**9}
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: METHODS[method].get(key, 2)} | more))
    if method.endswith("TUNING"):
        load_adapter(load_base(TINY), str(tmp_path))


def test_a_rank_that_the_weights_do_not_have_takes_no_memory(hostile, base):
    """Within the bound, and rejected by the file's shapes before any weight of that rank is made."""
    made, before = [], torch.nn.init.kaiming_uniform_

    def watched(tensor, *args, **kwargs):
        made.append(tensor.device.type)
        return before(tensor, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.init, "kaiming_uniform_", watched)
        assert "size mismatch" in rejected(lambda: load_adapter(base, hostile({"r": 1024})))
    assert made
    assert set(made) == {"meta"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"peft_type": "LORA", "r": ' + "[" * 150 + "]" * 150 + "}", "nested too deeply"),
        (json.dumps({"peft_type": "LORA", "other": "x" * 5_000_000}), "bytes; expected fewer"),
        ('{"r": ' + "1" * 5000 + "}", "invalid JSON"),
        ("[]", "has no peft_type"),
    ],
)
def test_a_hostile_file_is_rejected_by_name(content, says, hostile, base):
    line = rejected(lambda: load_adapter(base, hostile(content)))
    assert "adapter_config.json" in line
    assert says in line


def test_what_names_code_or_files_does_not_reach_peft(adapter, base, caplog):
    found = adapter_config(str(adapter)) | {
        "megatron_core": "os.core", "auto_mapping": {"parent_library": "os"}, "runtime_config": {"a": 1},
        "corda_config": {"cache_file": "/etc/passwd", "corda_method": "ipm"}, "init_lora_weights": "corda",
        "not_yet": 3,
    }  # fmt: skip
    config = checked_config(found, base, "here")
    assert (config.megatron_core, config.auto_mapping) == ("megatron.core", None)
    assert (config.corda_config.cache_file, config.corda_config.corda_method) == (None, "ipm")
    assert not hasattr(config, "not_yet")
    assert "not_yet" in caplog.text
    words = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "a", "tokenizer_name_or_path": "/evil"}
    virtual = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "tokenizer_kwargs": {"trust_remote_code": True}}
    config = checked_config(virtual | words, base, "here")
    assert (config.prompt_tuning_init, config.tokenizer_name_or_path, config.tokenizer_kwargs) == ("RANDOM", None, None)
