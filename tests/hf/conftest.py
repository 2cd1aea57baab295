"""Hugging Face trainers over the bundled model and texts."""

import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from lit_mem import assets
from lit_mem.hf import MemorizationCallback
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

TINY = "asset:tiny_llama"
SETTINGS = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-3,
    "eval_strategy": "epoch",
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
}

SFT = {"max_length": 48, "activation_checkpointing": False, "bf16": False}


@pytest.fixture(scope="session")
def member_texts():
    return _lines("train", 16)


@pytest.fixture(scope="session")
def heldout_texts():
    return _lines("heldout", 12)


def _lines(split, n):
    path = assets.path("case_reports") / f"{split}.jsonl"
    return [json.loads(line)["text"] for line in path.read_text().splitlines()[:n]]


@pytest.fixture
def lora():
    """The bundled model with a new peft adapter; dropout uses random numbers in every step."""

    def make(base=None, **options):
        torch.manual_seed(0)
        model = load_base(TINY) if base is None else base
        return get_peft_model(model, LoraConfig(**lora_options(**options)))

    return make


def lora_options(**options):
    return {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["v_proj", "o_proj"]} | options


@pytest.fixture
def callback():
    """The callback as most tests need it, without generation."""

    def make(**options):
        return MemorizationCallback(**{"suite": "quick", "check": False} | options)

    return make


@pytest.fixture
def trainer(tmp_path, lora, member_texts, heldout_texts):
    """Makes a `transformers.Trainer`: tokenized rows, padded by the language-modelling collator."""

    def make(*callbacks, model=None, train=None, heldout=None, collator=None, tokenizer=None, kind=Trainer, **settings):
        tokenizer = tokenizer or load_tokenizer(TINY)
        rows = [tokenized(tokenizer, texts) for texts in (member_texts, heldout_texts)]
        parts = {k: settings.pop(k) for k in ("compute_metrics", "optimizers", "model_init") if k in settings}
        return kind(
            **({} if "model_init" in parts else {"model": lora() if model is None else model}),
            args=TrainingArguments(**{"output_dir": str(tmp_path / "out")} | SETTINGS | settings),
            train_dataset=rows[0] if train is None else train,
            eval_dataset=rows[1] if heldout is None else heldout or None,
            data_collator=collator or DataCollatorForLanguageModeling(tokenizer, mlm=False),
            processing_class=tokenizer,
            callbacks=list(callbacks),
            **parts,
        )

    return make


def tokenized(tokenizer, texts, length=48):
    return Dataset.from_list([{"input_ids": tokenizer(text)["input_ids"][:length]} for text in texts])


@pytest.fixture
def sft(tmp_path):
    """Makes TRL's `SFTTrainer` over typical user rows."""

    def make(train, heldout, *callbacks, tokenizer=None, model=None, peft=True, **settings):
        torch.manual_seed(0)
        return SFTTrainer(
            load_base(TINY) if model is None else model,
            args=SFTConfig(**{"output_dir": str(tmp_path / "out")} | SFT | SETTINGS | settings),
            train_dataset=Dataset.from_list(train) if isinstance(train, list) else train,
            eval_dataset=Dataset.from_list(heldout) if isinstance(heldout, list) else heldout,
            processing_class=tokenizer or load_tokenizer(TINY),
            peft_config=LoraConfig(**lora_options()) if peft else None,
            callbacks=list(callbacks),
        )

    return make


@pytest.fixture
def adapter_of():
    """A copy of the weights that a trainer has trained, by name."""

    def copied(trainer):
        return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}

    return copied


@pytest.fixture
def scored():
    """The table of the last pass of a callback."""
    return lambda callback: callback.live._run.session.audit.result.rows
