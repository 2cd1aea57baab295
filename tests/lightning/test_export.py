"""What `MemorizationCheckpoint` exports can be used by itself."""

import pytest
import torch

from lit_mem.adapters import FullFineTuning, HeadOnly, LoRA
from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

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
