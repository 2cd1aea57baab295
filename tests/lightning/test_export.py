"""Exports of `MemorizationCheckpoint` are usable on their own, with a card of their metrics."""

import json

import huggingface_hub
import peft
import pytest
import torch
import transformers
import yaml
from huggingface_hub import ModelCard
from lightning.pytorch.loggers import CSVLogger

from lit_mem.adapters import FullFineTuning, HeadOnly, LoRA, PromptTuning
from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.files import record
from lit_mem.lightning.memorization import Memorization
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer
from tests.audit.test_push import Hub

TINY = "asset:tiny_llama"

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def exported(module, data, trainer, folder, adapter, **options):
    model, keeper = module(adapter=adapter), MemorizationCheckpoint(dirpath=str(folder))
    model.tokenizer.chat_template = TEMPLATE
    trainer([keeper], max_epochs=1, limit_train_batches=1, num_sanity_val_steps=0).fit(model, data(**options))
    return model, folder / "best-adapter"


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [FullFineTuning(), HeadOnly()], ids=lambda a: type(a).__name__)
def test_a_model_without_an_adapter_is_a_complete_folder(adapter, module, data, trainer, tmp_path):
    model, folder = exported(module, data, trainer, tmp_path, adapter)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"} <= names
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = model.language_model.eval()(input_ids=ids, use_cache=False).logits
        assert torch.equal(load_base(str(folder)).eval()(input_ids=ids, use_cache=False).logits, expected)
    again = load_tokenizer(str(folder))
    assert again("A fever of 39.")["input_ids"] == model.tokenizer("A fever of 39.")["input_ids"]
    assert again.chat_template == TEMPLATE


@pytest.mark.slow
def test_an_adapter_has_the_tokenizer_beside_it(module, data, trainer, tmp_path):
    model, folder = exported(module, data, trainer, tmp_path, LoRA(rank=2))
    assert (folder / "adapter_model.safetensors").is_file()
    assert load_tokenizer(str(folder)).get_vocab() == model.tokenizer.get_vocab()


@pytest.mark.slow
def test_the_exported_tokenizer_is_that_of_the_texts(module, data, trainer, tmp_path):
    other = load_tokenizer("asset:tiny_llama")
    other.chat_template = "{{ messages[0]['content'] }}"
    other.save_pretrained(tmp_path / "other")
    options = {"tokenizer": str(tmp_path / "other")}
    model, folder = exported(module, data, trainer, tmp_path / "kept", LoRA(rank=2), **options)
    assert model.tokenizer.chat_template == TEMPLATE
    assert load_tokenizer(str(folder)).chat_template == other.chat_template


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 40)[None], use_cache=False).logits


@pytest.fixture(scope="module")
def measured(module, data, trainer, tmp_path_factory):
    """A run of two epochs whose first is kept as the best, as members' perplexity falls; the module and the folder."""
    folder = tmp_path_factory.mktemp("measured")
    torch.manual_seed(0)
    limit = ["mia/reference_auroc > 1.5"]
    keeper = MemorizationCheckpoint(limit, monitor="memorization/perplexity_members", mode="max", merge=True)
    model = module(adapter=LoRA(rank=2), lr=1e-2)
    fit = trainer([Memorization("quick"), keeper], logger=CSVLogger(folder, "run", 0), limit_train_batches=2)
    fit.fit(model, data(train_size=12, heldout_size=12))
    return model, folder / "run" / "version_0"


def test_an_export_is_loaded_by_plain_libraries(measured):
    model, folder = measured
    place, expected = str(folder / "checkpoints" / "last-adapter"), logits(model.language_model)
    assert not torch.equal(logits(load_base(TINY)), expected)
    assert torch.equal(logits(peft.AutoPeftModelForCausalLM.from_pretrained(place)), expected)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(load_base(TINY), place)), expected)
    assert torch.equal(logits(transformers.AutoModelForCausalLM.from_pretrained(place)), expected)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    assert tokenizer("A fever of 39.")["input_ids"] == model.tokenizer("A fever of 39.")["input_ids"]


def card_of(folder):
    card = ModelCard.load(folder / "README.md")
    return card, {one.metric_type: one.metric_value for one in card.data.eval_results}


def test_each_card_has_the_metrics_of_the_step_that_it_lies_beside(measured):
    _, folder = measured
    lines, _ = record.read(folder / record.FILE)
    steps = {}
    for which in ("best", "last"):
        export = folder / "checkpoints" / f"{which}-adapter"
        steps[which] = json.loads((export / "lit_mem.json").read_text())["global_step"]
        (line,) = [one for one in lines if one.step == steps[which]]
        card, metrics = card_of(export)
        assert metrics == {name: line.metrics[name] for name in metrics}
        assert {"mia/reference_auroc", "val/perplexity", "memorization/perplexity_gap"} <= metrics.keys()
        assert f"step {steps[which]}" in card.text
        assert "| `mia/reference_auroc > 1.5` |" in card.text
        assert "`case_reports`: 12 texts (members)" in card.text
        assert "on 12 members and 12 of" in card.text
        assert (card.data.base_model, card.data.library_name) == ("tiny_llama", "peft")
        assert str(folder) not in card.content
    assert card_of(folder / "checkpoints" / "best-adapter")[1] != card_of(folder / "checkpoints" / "last-adapter")[1]
    assert steps["best"] < steps["last"]


def test_a_merged_model_has_a_card_of_its_own(measured):
    _, folder = measured
    card, metrics = card_of(folder / "checkpoints" / "best-merged")
    assert metrics == card_of(folder / "checkpoints" / "best-adapter")[1]
    assert card.data.library_name == "transformers"
    assert "PeftModel" not in card.text
    assert "merged into the base" in card.text


@pytest.mark.slow
def test_a_model_without_an_adapter_has_a_card(module, data, trainer, tmp_path):
    _, folder = exported(module, data, trainer, tmp_path, FullFineTuning())
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (head["library_name"], head["base_model_relation"]) == ("transformers", "finetune")
    assert "model-index" not in head  # memorization was not measured


@pytest.mark.slow
def test_what_cannot_be_merged_is_one_line_and_the_adapter_is_kept(module, data, trainer, tmp_path, caplog):
    model, keeper = module(adapter=PromptTuning(tokens=3)), MemorizationCheckpoint(dirpath=str(tmp_path), merge=True)
    trainer([keeper], max_epochs=1, limit_train_batches=1, num_sanity_val_steps=0).fit(model, data())
    assert "Not merged: an adapter of PROMPT_TUNING cannot be merged into its base." in caplog.text
    assert (tmp_path / "best-adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "best-merged").exists()


@pytest.mark.parametrize(
    ("threshold", "options", "sent"),
    [
        ("mia/reference_auroc > 0.99999", {}, "best"),
        pytest.param("mia/reference_auroc > 0.01", {}, None, marks=pytest.mark.slow),
        pytest.param("mia/reference_auroc > 0.01", {"push_over_limits": True}, "last", marks=pytest.mark.slow),
    ],
)
def test_a_fit_pushes_what_its_limits_allow(
    threshold, options, sent, module, data, trainer, tmp_path, monkeypatch, caplog
):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    keeper = MemorizationCheckpoint([threshold], dirpath=str(tmp_path), push_to_hub="me/notes", **options)
    fit = trainer([Memorization("quick"), keeper], max_epochs=1, limit_train_batches=1)
    fit.fit(module(adapter=LoRA(rank=2)), data(train_size=12, heldout_size=12))
    assert fit.state.finished
    assert (tmp_path / "last-adapter" / "adapter_model.safetensors").is_file()
    if sent is None:
        assert (hub.calls, hub.sent) == (0, {})
        assert "Not pushed to me/notes: no validation was under every threshold." in caplog.text
        return
    assert hub.private is True
    names = {path.name for path in (tmp_path / f"{sent}-adapter").iterdir()}
    assert set(hub.sent) == names
    assert not any(name.endswith((".ckpt", ".parquet")) for name in hub.sent)
    assert hub.sent["README.md"] == (tmp_path / f"{sent}-adapter" / "README.md").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_knows_what_its_best_checkpoint_measured(module, data, trainer, tmp_path):
    def fitted(epochs, path=None):
        keeper = MemorizationCheckpoint(dirpath=str(tmp_path))
        model = module(adapter=LoRA(rank=2), lr_schedule="constant")
        trainer([Memorization("quick"), keeper], max_epochs=epochs, limit_train_batches=1).fit(
            model, data(train_size=12, heldout_size=12), ckpt_path=path
        )
        return keeper

    first = fitted(1)
    assert first.lines["best"].step == first.lines["last"].step == 1
    again = MemorizationCheckpoint(dirpath=str(tmp_path))
    again.load_state_dict(
        json.loads(json.dumps(first.state_dict() | {"best_model_score": None, "current_score": None}, default=str))
    )
    assert again.lines == first.lines
    resumed = fitted(2, str(tmp_path / "last.ckpt"))
    assert resumed.lines["last"].step == 2
    assert resumed.lines["best"].step == resumed.epochs["best"]
