"""`CausalLM.load_from_checkpoint` without other arguments restores the trained module."""

import json

import peft
import pytest
import torch

from lit_mem.adapters import IA3, Adapter, FullFineTuning, HeadOnly, LoRA, PromptTuning
from lit_mem.adapters.recorded import RecordedAdapter, _adapter, arguments
from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.errors import CheckpointError, ModelError
from lit_mem.lightning.module import CausalLM
from lit_mem.models.checkpoint import read_content
from lit_mem.scoring.reference_scores import Reference

pytestmark = pytest.mark.slow

TINY = "asset:tiny_llama"


class Elsewhere(Adapter):
    """A peft adapter without a class in this package."""

    def wrap(self, base):
        return peft.get_peft_model(base, peft.LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=["v_proj"]))


class LastNorm(Adapter):
    """Not a peft adapter."""

    def wrap(self, base):
        base.requires_grad_(False)
        base.model.norm.requires_grad_(True)
        return base


@pytest.fixture
def saved(module, data, trainer, tmp_path):
    """Trains two steps and saves; returns the module and the checkpoint's path."""

    def make(**kwargs):
        model = module(lr=1e-2, **kwargs)
        keeper = MemorizationCheckpoint(dirpath=str(tmp_path / "kept"))
        trainer([keeper], max_epochs=1, limit_train_batches=2, num_sanity_val_steps=0).fit(
            model, data(train_size=12, heldout_size=4)
        )
        return model, str(tmp_path / "kept" / "last.ckpt")

    return make


def logits(module):
    with torch.no_grad():
        return module.language_model.eval()(input_ids=torch.arange(3, 40)[None], use_cache=False).logits


@pytest.mark.parametrize(
    "adapter",
    [
        LoRA(rank=2, targets=["all-linear"], layers=[1, 2], rslora=True),
        FullFineTuning(),
        Elsewhere(),
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                LoRA(rank=2, dora=True),
                LoRA(rank=2, init="pissa"),
                IA3(),
                PromptTuning(tokens=3),
                HeadOnly(),
            )
        ),
    ],
    ids=lambda a: type(a).__name__,
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_with_no_other_argument_it_gives_the_same_logits(adapter, saved):
    model, path = saved(adapter=adapter)
    again = CausalLM.load_from_checkpoint(path)
    assert torch.equal(logits(again), logits(model))
    untrained = CausalLM(TINY, adapter=adapter)
    untrained.configure_model()
    assert not torch.equal(logits(untrained), logits(model))
    assert trained_names(again) == trained_names(model)


def trained_names(module):
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


@pytest.mark.slow
def test_the_folder_that_the_adapter_came_from_may_be_gone(saved, base, tmp_path):
    folder = tmp_path / "start"
    IA3().wrap(base).save_pretrained(folder, save_embedding_layers=False)
    model, path = saved(adapter_path=str(folder))
    folder.rename(tmp_path / "moved")
    assert torch.equal(logits(CausalLM.load_from_checkpoint(path)), logits(model))


@pytest.mark.slow
def test_other_arguments_replace_those_of_the_checkpoint(saved):
    model, path = saved(reference=Reference("copy", cache=False), dtype="float32", attention="eager")
    again = CausalLM.load_from_checkpoint(path, warmup_fraction=0.5)
    assert (again.reference, again.attention) == (Reference("copy", cache=False), "eager")
    assert again.warmup_fraction == 0.5
    again = CausalLM.load_from_checkpoint(path, attention="sdpa", adapter=LoRA(rank=4, targets=["v", "o"]))
    assert (again.attention, again.model_id) == ("sdpa", TINY)
    torch.testing.assert_close(logits(again), logits(model))
    with pytest.raises(CheckpointError, match=r"check model\.adapter\.rank"):
        CausalLM.load_from_checkpoint(path, adapter=LoRA(rank=8, targets=["v", "o"]))
    with pytest.raises(ModelError, match=r"\./nowhere"):
        CausalLM.load_from_checkpoint(path, model_id="./nowhere")


@pytest.mark.slow
def test_a_class_from_elsewhere_must_be_given_again(saved):
    model, path = saved(adapter=LastNorm())
    with pytest.raises(CheckpointError, match="adapter=…"):
        CausalLM.load_from_checkpoint(path)
    assert torch.equal(logits(CausalLM.load_from_checkpoint(path, adapter=LastNorm())), logits(model))


@pytest.mark.slow
def test_an_older_checkpoint_names_the_arguments_to_give(saved, tmp_path):
    model, path = saved()
    content = torch.load(path, weights_only=True)
    json.dumps(content["lit_mem"].pop("made_with"))  # plain values
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="model_id=… and adapter=…"):
        CausalLM.load_from_checkpoint(path)
    again = CausalLM.load_from_checkpoint(path, model_id=TINY, adapter=LoRA(rank=4, targets=["v", "o"]))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.slow
def test_what_imports_code_or_is_no_checkpoint_is_rejected(saved, tmp_path):
    _, path = saved()
    content = torch.load(path, weights_only=True)
    content["lit_mem"]["made_with"]["adapter"]["peft"] |= {"megatron_config": {"a": 1}, "megatron_core": "bomb"}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="megatron_config"):
        CausalLM.load_from_checkpoint(path)
    for broken in (tmp_path / "absent.ckpt", tmp_path / "text.ckpt"):
        if broken.name == "text.ckpt":
            broken.write_text("no checkpoint")
        with pytest.raises(CheckpointError, match=broken.name):
            CausalLM.load_from_checkpoint(broken)


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, pytest.param("meta", marks=pytest.mark.slow)])
def test_it_is_read_onto_the_cpu_unless_a_place_is_given(given, saved, monkeypatch):
    _, path = saved()
    places, load = [], torch.load

    def watched(*args, map_location, **kwargs):
        places.append(map_location)
        return load(*args, map_location="cpu", **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    read_content(path, given)
    assert places == [given or "cpu"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda made: made.pop("attention"), "attention"),
        (lambda made: made.update(dtype=3), "dtype"),
        (lambda made: made.update(model_id=None), "model_id"),
        (lambda made: made["reference"].update(other=1), "reference"),
        (lambda made: made.update(reference=[1]), "reference"),
        (lambda made: made.update(adapter="LoRA"), "adapter"),
        (lambda made: made.update(adapter={"peft": 1}), "adapter"),
        (lambda made: made.clear(), "model_id"),
    ],
)
def test_a_damaged_record_is_rejected_by_name(damage, named):
    made = {"model_id": TINY, "revision": None, "dtype": "float32", "quantization": "none", "attention": None}
    made |= {"reference": {"kind": "auto"}, "adapter": {"name": "HeadOnly"}}
    assert arguments(made, {})["reference"] == Reference("auto")
    damage(made)
    with pytest.raises(CheckpointError, match=rf"damaged: its made_with\.{named}"):
        arguments(made, {})
    with pytest.raises(CheckpointError, match="damaged: its made_with"):
        arguments("none", {})


@pytest.mark.parametrize("options", [{}, {"peft_type": "LORA", "r": "a", "target_modules": None, "other": 1}])
def test_damaged_options_of_an_adapter_are_rejected(options, base):
    with pytest.raises(CheckpointError, match=r"damaged: its made_with\.adapter"):
        RecordedAdapter(options).wrap(base)
    with pytest.raises(CheckpointError, match=r"adapter=…"):
        _adapter({"name": []})
