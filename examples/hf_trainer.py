"""Hugging Face's Trainer, measured live by one callback. Runs offline with the bundled model and corpus."""

import json
import sys

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from lit_mem import assets
from lit_mem.hf import MemorizationCallback
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

tokenizer = load_tokenizer("asset:tiny_llama")


def rows(split: str) -> Dataset:
    """Some of the bundled case reports, in place of your own data."""
    lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()[:60]
    texts = [json.loads(line)["text"] for line in lines]
    return Dataset.from_list([{"input_ids": tokenizer(text)["input_ids"]} for text in texts])


torch.manual_seed(0)
adapter = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"])
output_dir = sys.argv[1] if len(sys.argv) > 1 else "logs/hf_trainer"
trainer = Trainer(
    get_peft_model(load_base("asset:tiny_llama"), adapter),
    TrainingArguments(output_dir, num_train_epochs=4, learning_rate=5e-3, eval_strategy="epoch", report_to="none"),
    train_dataset=rows("train"),
    eval_dataset=rows("heldout"),
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    processing_class=tokenizer,
    callbacks=[MemorizationCallback(stop="mia/reference_auroc > 0.85")],
)
trainer.train()
