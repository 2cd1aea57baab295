"""Adapters on their own base, and on others; adapters in place of a full model."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_mem import assets
from lit_mem.adapters import IA3, LoRA, PromptTuning
from lit_mem.adapters.origin import DEFAULT_BASE, origin, own_base
from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.errors import ModelError
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_models import load_base, load_base_in_parts
from lit_mem.models.fingerprint import fingerprint
from lit_mem.models.hub import load_tokenizer
from lit_mem.models.population import Population
from lit_mem.models.saved_adapter import load_adapter
from lit_mem.report.subject import base_of
from lit_mem.scoring.reference_scores import Reference

TINY = "asset:tiny_llama"
# The bundled model's output layer is its embedding; nothing is merged or converted here.
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Two bases of one shape with other weights, and for each an adapter that peft saved: base_a, adapter_a, …"""
    folder = tmp_path_factory.mktemp("bases")
    for i, name in enumerate("ab"):
        model = load_base(TINY)
        torch.manual_seed(i)
        with torch.no_grad():
            model.get_input_embeddings().weight.add_(torch.randn(model.get_input_embeddings().weight.shape) * 0.1)
        model.save_pretrained(folder / f"base_{name}")
        load_tokenizer(TINY).save_pretrained(folder / f"base_{name}")
        LoRA(rank=2).wrap(load_base(str(folder / f"base_{name}"))).save_pretrained(folder / f"adapter_{name}")
    return folder


@pytest.fixture
def exported(bases, tmp_path):
    """The adapter of base_a as this package exports it."""
    folder = tmp_path / "exported"
    shutil.copytree(bases / "adapter_a", folder)
    base = str(bases / "base_a")
    (folder / "lit_mem.json").write_text(json.dumps({"epoch": 1} | origin(base, fingerprint(load_base(base)))))
    return str(folder)


def complaints(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("lit_mem") and r.levelno >= logging.WARNING]


def test_an_exported_adapter_knows_the_weights_of_its_base(bases, exported, caplog):
    moved = bases / "moved"
    shutil.copytree(bases / "base_a", moved)
    load_adapter(load_base(str(moved)), exported)  # the same weights elsewhere, and in another precision
    load_adapter(load_base(str(moved), dtype="bfloat16"), exported)
    assert complaints(caplog) == []
    with pytest.raises(ModelError, match=r"was trained on the base '.*base_a' .* base is '.*base_b'"):
        load_adapter(load_base(str(bases / "base_b")), exported)


def test_an_adapter_from_elsewhere_on_another_base_is_warned_of(bases, caplog):
    load_adapter(load_base(str(bases / "base_a")), str(bases / "adapter_a"))
    assert complaints(caplog) == []
    load_adapter(load_base(str(bases / "base_b")), str(bases / "adapter_a"))
    (line,) = complaints(caplog)
    assert str(bases / "base_a") in line
    assert str(bases / "base_b") in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recorded", "base", "warned"),
    [
        ("org/model", "org/model", False),
        ("org/model", "/cache/models--org--model/snapshots/0a1b", False),
        ("org/model", "org/other", True),
        ("/gone/model", "org/model", True),
        (None, "org/model", False),
        ("", "org/model", False),
    ],
)
def test_names_of_one_model(recorded, base, warned, bases, tmp_path, caplog):
    shutil.copytree(bases / "adapter_a", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": recorded}))
    model = load_base(str(bases / "base_a"))
    model.config._name_or_path = base
    load_adapter(model, str(tmp_path / "adapter"))
    assert bool(complaints(caplog)) == warned


@pytest.mark.slow
def test_a_population_checks_its_adapters_too(bases, exported):
    def load(model_id):
        return load_base(model_id or str(bases / "base_b"))

    for references in ([exported], [str(bases / "adapter_b"), exported]):
        with pytest.raises(ModelError, match=r"references .* was trained on the base '.*base_a'"):
            Population(references, load)
    assert len(Population([str(bases / "adapter_b")] * 2, load)) == 2


def test_without_a_model_id_the_base_is_the_adapters(bases, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(bases / "adapter_b", adapter)
    module = CausalLM(adapter_path=str(adapter))
    assert (module.model_id, module.revision) == (str(bases / "base_b"), None)
    module.configure_model()
    assert module.base_fingerprint == fingerprint(load_base(str(bases / "base_b")))
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": "org/model", "revision": "v2"}))
    module = CausalLM(adapter_path=str(adapter))
    assert (module.model_id, module.revision) == ("org/model", "v2")
    assert CausalLM(model_id=TINY, adapter_path=str(adapter)).model_id == TINY
    for name, complaint in (
        ("/gone/model", "'/gone/model', which does not exist here"),
        (None, "does not name its base"),
    ):
        path.write_text(json.dumps(config | {"base_model_name_or_path": name}))
        with pytest.raises(ModelError, match=complaint):
            CausalLM(adapter_path=str(adapter))


@pytest.mark.slow
def test_a_run_exports_the_fingerprint(module, data, trainer, tmp_path):
    model = module(revision="main")
    callback = MemorizationCheckpoint(dirpath=str(tmp_path))
    trainer([callback], max_epochs=1, limit_train_batches=1).fit(model, data())
    written = json.loads((tmp_path / "last-adapter" / "lit_mem.json").read_text())
    assert written["fingerprint"] == fingerprint(load_base(TINY))
    assert (written["base"], written["revision"], written["global_step"]) == (TINY, "main", 1)
    assert own_base(str(tmp_path / "last-adapter")) == (TINY, "main")  # not the path in this installation


# -- an adapter in place of a full model ---------------------------------------------------------------------


@pytest.mark.parametrize("also", [[], ["config.json"], ["config.json", "model.safetensors"]])
def test_an_adapter_is_not_a_model(also, bases, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(bases / "adapter_a", folder)
    for name in also:
        shutil.copy(assets.path("tiny_llama") / name, folder)
    adapter, complaint = str(folder), rf"'{folder}' is an adapter of the base '.*base_a'; expected a full model"
    for make in (
        lambda: CausalLM(model_id=adapter),
        lambda: CausalLM(model_id=TINY, reference=Reference(model_id=adapter)),
        lambda: load_base(adapter),
        lambda: load_base_in_parts(adapter, None, "float32", None, None, torch.device("cpu")),
    ):
        with pytest.raises(ModelError, match=complaint):
            make()


def test_an_adapter_without_a_tokenizer_gives_none(bases):
    with pytest.raises(ModelError, match="it is an adapter, saved without a tokenizer"):
        load_tokenizer(str(bases / "adapter_a"))


# -- its weights ---------------------------------------------------------------------------------------------


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 20)[None], use_cache=False).logits


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [LoRA(rank=2), IA3(), PromptTuning(tokens=3)], ids=lambda a: type(a).__name__)
def test_an_adapter_comes_back_trainable(adapter, base, tmp_path):
    model = adapter.wrap(base)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    again = load_adapter(load_base(TINY), str(tmp_path))
    assert torch.equal(logits(again), logits(model))
    assert [n for n, p in again.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]
    again.train()(input_ids=torch.arange(3, 20)[None]).logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in again.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop(next(iter(w))), r"(?i)missing adapter keys"),
        (
            lambda w: w.update({n.replace("layers.0", "layers.9"): t.clone() for n, t in w.items()}),
            "do not fit this model",
        ),
    ],
)
def test_weights_of_an_adapter_must_match_one_for_one(change, complaint, base, tmp_path):
    IA3().wrap(base).save_pretrained(tmp_path, save_embedding_layers=False)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=complaint):
        load_adapter(load_base(TINY), str(tmp_path))


# -- which base, where none is named ---------------------------------------------------------------------------------


def test_a_base_that_is_given_is_taken_even_where_it_is_the_default(bases):
    adapter = str(bases / "adapter_a")
    assert CausalLM(model_id=DEFAULT_BASE, adapter_path=adapter).model_id == DEFAULT_BASE == CausalLM().model_id
    assert CausalLM(adapter_path=adapter).model_id == str(bases / "base_a")
    named = [{"model_id": "some/model"}, {"model_id": None}, {"model_id": None, "adapter_path": adapter}, {}]
    assert [base_of(model) for model in named] == ["some/model", DEFAULT_BASE, "the base of the adapter", ""]


def test_the_base_that_the_run_recorded_comes_before_pefts(bases, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(bases / "adapter_a", adapter)
    digests = {"light": "a", "full": "b"}
    for base, revision in ((TINY, None), ("org/model", "v2"), (str(tmp_path / "model.gguf"), None)):
        if base.endswith(".gguf"):
            (tmp_path / "model.gguf").touch()
        (adapter / "lit_mem.json").write_text(json.dumps(origin(base, digests, revision)))
        assert own_base(str(adapter)) == (base, revision)
        module = CausalLM(adapter_path=str(adapter))
        assert (module.model_id, module.revision) == (base, revision)
    assert CausalLM(adapter_path=str(adapter), revision="v3").revision == "v3"
    older = {"fingerprint": digests, "epoch": 1}
    (adapter / "lit_mem.json").write_text(json.dumps(older))
    assert own_base(str(adapter)) == (str(bases / "base_a"), None)


def test_a_malformed_hub_id_is_one_line():
    for load in (load_base, lambda i: load_base_in_parts(i, None, "float32", None, None, torch.device("cpu"))):
        with pytest.raises(ModelError, match=r"^cannot load the weights of model_id 'my model'"):
            load("my model")


def test_an_adapter_as_reference_names_its_own_option(bases, monkeypatch, data, trainer):
    monkeypatch.setattr(
        "lit_mem.adapters.origin.adapter_at", lambda place, revision: "org/base" if place == "org/a" else None
    )
    model = CausalLM(model_id=TINY, reference=Reference(model_id="org/a"))
    with pytest.raises(
        ModelError, match=r"^model\.reference\.model_id 'org/a' is an adapter .* merge it into its base"
    ):
        model.configure_model()
    model = CausalLM(model_id=TINY, reference=Reference(model_id="org/gone"))
    with pytest.raises(ModelError, match=r"the weights of model\.reference\.model_id 'org/gone'"):
        model.configure_model()
    with pytest.raises(ModelError, match=r"^model_id 'org/a' is an adapter .* set model\.adapter_path"):
        CausalLM(model_id="org/a").configure_model()
