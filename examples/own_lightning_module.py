"""Measure a LightningModule and data loaders written without lit_mem: python examples/own_lightning_module.py"""

import json

import lightning.pytorch as pl
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_mem import Memorization, assets

MODEL, REPORTS = assets.path("tiny_llama"), assets.path("case_reports")  # both are bundled
members, heldout = (
    [json.loads(line)["text"] for line in (REPORTS / name).read_text("utf-8").splitlines()[:40]]
    for name in ("train.jsonl", "heldout.jsonl")
)
tokenizer = AutoTokenizer.from_pretrained(MODEL)


class Mine(pl.LightningModule):
    def __init__(self):
        super().__init__()
        base = AutoModelForCausalLM.from_pretrained(MODEL)
        self.model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))

    def training_step(self, texts, batch_idx):
        ids = tokenizer(texts, return_tensors="pt")["input_ids"].to(self.device)
        return self.model(input_ids=ids, labels=ids).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


pl.seed_everything(0)
memorization = Memorization(members=members, heldout=heldout, tokenizer=tokenizer, stop="mia/reference_auroc > 0.9")
trainer = pl.Trainer(max_epochs=3, callbacks=[memorization], enable_model_summary=False)
trainer.fit(Mine(), DataLoader(members, batch_size=1, shuffle=True))
