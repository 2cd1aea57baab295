"""`Peft`: every peft method trains, is disabled bit-exactly, and can be saved, resumed, exported and loaded."""

import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
import yaml
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from lit_mem.adapters import IA3, Peft
from lit_mem.adapters.any_method import _REJECTED
from lit_mem.adapters.base import adapter_off
from lit_mem.audit.card_facts import can_merge
from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.cli.main import main
from lit_mem.errors import ConfigError, ModelError
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_models import load_base
from lit_mem.scoring.scorer import TokenScorer
from tests.adapters.test_families import changed, loss_alone

TINY = "asset:tiny_llama"
DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "adapters.md"
# Options that a method needs for a model as small as the bundled one, or for any.
OPTIONS = {
    "C3A": {"block_size": 8},
    "OFT": {"oft_block_size": 8},
    "TRAINABLE_TOKENS": {"token_indices": [300, 301, 302]},
    "VBLORA": {"vector_length": 8, "num_vectors": 16},
}
KNOWN = sorted({each.value for each in PEFT_TYPE_TO_CONFIG_MAPPING} - _REJECTED.keys())
# Untrained they differ from the base: virtual tokens, random vectors, or a product rounded differently.
START_ELSEWHERE = {
    *("CARTRIDGE", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"),
    *("DEFT", "FROD", "HRA", "OSF", "UNILORA", "VBLORA"),
}
# transformers' own from_pretrained cannot load them: virtual tokens, and weights that layers share.
BY_PEFT_ALONE = {
    *("CARTRIDGE", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "ADAPTION_PROMPT"),
    *("FROD", "PVERA", "TINYLORA", "UNILORA", "VBLORA", "VERA"),
}
QUICK = ("VERA",)
USUAL = ("VERA", "LOHA", "OFT", "PREFIX_TUNING", "P_TUNING", "LN_TUNING")


def made(method):
    return Peft(method.lower(), options=OPTIONS.get(method))


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 40)[None]).logits


class Seen(Memorization):
    """The reference attack's AUROC of each pass, the first before training."""

    def on_validation_end(self, trainer, pl_module):
        super().on_validation_end(trainer, pl_module)
        vars(self).setdefault("aurocs", []).append(float(trainer.callback_metrics["mia/reference_auroc"]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # peft's and torch's, of methods that are experimental
@pytest.mark.parametrize(
    "method", [pytest.param(each, marks=[] if each in USUAL else pytest.mark.exhaustive) for each in KNOWN]
)
def test_a_method_of_peft_does_all_that_an_adapter_does(method, module, data, trainer, tmp_path):
    def run(folder, epochs, ckpt_path=None):
        torch.manual_seed(0)  # of the untrained start
        model = module(adapter=made(method), lr=1e-2, lr_schedule="constant")
        seen = Seen(suite="quick")
        keeper = MemorizationCheckpoint(dirpath=str(tmp_path / folder))
        fit = trainer([seen, keeper], max_epochs=epochs, limit_train_batches=2)
        fit.fit(model, data(train_size=12, heldout_size=12), ckpt_path=ckpt_path)
        return model, seen.aurocs

    model, aurocs = run("whole", 2)
    assert (aurocs[0] == 0.5) is (method not in START_ELSEWHERE)
    tuned, base = logits(model.language_model), logits(load_base(TINY))
    assert not torch.equal(tuned[:, -39:], base)
    assert model._scored_model.reference.scorer is None  # no copy: the same weights, adapter disabled
    with adapter_off(model.language_model) as off:
        assert torch.equal(logits(off), base)
    run("half", 1)
    resumed, _ = run("half", 2, str(tmp_path / "half" / "last.ckpt"))
    assert torch.equal(logits(resumed.language_model), tuned)
    again = CausalLM.load_from_checkpoint(tmp_path / "whole" / "last.ckpt")
    assert torch.equal(logits(again.language_model), tuned)
    folder = str(tmp_path / "whole" / "last-adapter")
    started = CausalLM(adapter_path=folder)
    started.configure_model()
    assert torch.equal(logits(started.language_model), tuned)
    assert torch.equal(logits(peft.AutoPeftModelForCausalLM.from_pretrained(folder)), tuned)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(load_base(TINY), folder)), tuned)
    if method not in BY_PEFT_ALONE:
        assert torch.equal(logits(transformers.AutoModelForCausalLM.from_pretrained(folder)), tuned)
    if can_merge({"peft_type": method}):
        torch.testing.assert_close(logits(model.merged(folder)), tuned, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(ModelError, match=f"an adapter of {method} cannot be merged"):
            model.merged(folder)


def test_each_method_is_either_tried_or_rejected_by_name():
    assert set(KNOWN) | _REJECTED.keys() >= {each.value for each in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert set(OPTIONS) | START_ELSEWHERE <= set(KNOWN)


def test_the_document_says_what_holds():
    found = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in DOCUMENT.read_text().splitlines()]
    rows = {row[0].strip("`"): row[1:] for row in found if row[0].startswith("`") and row[0].endswith("`")}
    rejected = {name: row[0] for name, row in rows.items() if len(row) == 1 and name.isupper()}
    assert rejected == {name: f"it {why}" for name, why in _REJECTED.items()}
    tried = {name: tuple(cell == "yes" for cell in row[1:]) for name, row in rows.items() if len(row) == 4}
    assert tried == {
        name: (name not in START_ELSEWHERE, name not in BY_PEFT_ALONE, can_merge({"peft_type": name})) for name in KNOWN
    }


@pytest.mark.parametrize("name", sorted(_REJECTED))
def test_a_method_that_needs_more_than_training_is_rejected(name):
    with pytest.raises(ConfigError, match=rf"^model\.adapter\.peft_type is '{name}': it .*; expected another method$"):
        Peft(name)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"peft_type": "NOPE"}, r"peft_type is 'NOPE'; expected one of .*LOHA, LOKR"),
        (
            {"peft_type": "LoHa", "options": {"rank": 8}},
            r"options names 'rank', which is not an option of LOHA .* expected some of .*, r, ",
        ),
        ({"peft_type": "LORA", "options": {"megatron_core": "os"}}, "options names 'megatron_core'"),
        ({"peft_type": "LORA", "options": {"megatron_config": {}}}, "options names 'megatron_config'"),
        ({"peft_type": "VERA", "options": {"auto_mapping": {}}}, "options names 'auto_mapping'"),
        ({"peft_type": "PROMPT_TUNING", "options": {"tokenizer_kwargs": {}}}, "options names 'tokenizer_kwargs'"),
        ({"peft_type": "VERA", "options": {"task_type": "SEQ_CLS"}}, "options names 'task_type'"),
        ({"peft_type": "ADAMSS", "options": {"use_asa": True}}, "options names 'use_asa': it reallocates"),
        (
            {"peft_type": "CARTRIDGE", "options": {"num_frozen_tokens": 1}},
            "'num_frozen_tokens': it creates",
        ),
        (
            {"peft_type": "PREFIX_TUNING", "targets": ["q"]},
            r"targets is \['q'\], but PREFIX_TUNING does not adapt matrices",
        ),
        ({"peft_type": "VERA", "targets": []}, "targets is empty"),
        (
            {"peft_type": "VERA", "targets": ["q"], "options": {"target_modules": "q_proj"}},
            "targets is given together with",
        ),
    ],
)
def test_wrong_arguments_are_rejected_by_name(arguments, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Peft(**arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"peft_type": "VERA", "targets": ["c_attn"]}, "targets names 'c_attn', which this model does not have"),
        ({"peft_type": "VERA", "options": {"r": "8"}}, r"options: r is '8'; expected int or float or null"),
        ({"peft_type": "LOHA", "options": {"r": -1}}, "`r` should be a positive integer value"),
        ({"peft_type": "LOHA", "options": {"r": 4.5}}, "peft_type LOHA does not support this model"),
        ({"peft_type": "LOHA", "options": {"r": 10**9}}, "options: r is 1000000000; expected at most"),
        ({"peft_type": "C3A"}, "block size"),
        (
            {"peft_type": "VERA", "options": {"target_modules": ["nothing"]}},
            "does not support this model: No layers types compatible",
        ),
        (
            {"peft_type": "VERA", "options": {"target_modules": "(" * 9}},
            "target_modules is .*not a valid regular expression",
        ),
    ],
)
def test_what_does_not_go_with_the_model_is_one_line(arguments, complaint, base):
    with pytest.raises(ConfigError, match=complaint) as error:
        Peft(**arguments).wrap(base)
    assert "\n" not in str(error.value)


def config(model):
    return model.peft_config["default"]


def test_targets_are_named_as_for_lora(base):
    assert config(Peft("VERA", options={"r": 8}).wrap(base)).target_modules == {"v_proj", "o_proj"}
    assert config(Peft("LOHA", ["q", "up_proj"]).wrap(load_base(TINY))).target_modules == {"q_proj", "up_proj"}
    every = config(Peft("LOHA", ["all-linear"]).wrap(load_base(TINY))).target_modules
    assert every == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    norms = Peft("LN_TUNING", options={"target_modules": r".*\.2\..*layernorm"}).wrap(load_base(TINY))
    trained = {name for name, p in norms.named_parameters() if p.requires_grad}
    assert len(trained) == 2
    assert all(".layers.2." in name for name in trained)


def test_ia3_by_name_is_ia3(base):
    by_name, by_class = config(Peft("ia3").wrap(base)), config(IA3().wrap(load_base(TINY)))
    for name in ("target_modules", "feedforward_modules", "fan_in_fan_out", "task_type"):
        assert getattr(by_name, name) == getattr(by_class, name)


def test_a_model_of_transposed_weights():
    made = transformers.GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=1, n_positions=24)
    model = Peft("VERA", ["c_attn"], {"r": 2}).wrap(transformers.AutoModelForCausalLM.from_config(made))
    assert config(model).fan_in_fan_out is True


@pytest.mark.slow
def test_the_command_line_takes_it(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    options = {"adapter": "Peft", "adapter.peft_type": "VERA", "adapter.options": "{r: 8}", "adapter.targets": "[q]"}
    with pytest.raises(SystemExit):
        main(["fit", *(f"--model.{name}={value}" for name, value in options.items()), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["adapter"]
    assert printed["class_path"] == "lit_mem.adapters.Peft"
    assert printed["init_args"] == {"peft_type": "VERA", "targets": ["q"], "options": {"r": 8}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in KNOWN]
)
def test_scores_are_those_of_a_call_for_each_text(method, base, examples, batch):
    """Neither other texts of a batch nor padding change them, with any method."""
    model = changed(made(method).wrap(base))
    scores = TokenScorer(model)(batch)
    for i, example in enumerate(examples[:8]):
        mean = float(-scores.logprob[i].sum()) / int((example.labels != -100).sum())
        assert mean == pytest.approx(loss_alone(model, example), rel=1e-4)
