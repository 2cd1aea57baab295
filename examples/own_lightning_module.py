"""Lesson 1: see what a LightningModule of your own memorizes, with one callback and no change to the module.

You learn how to give the callback its texts, read its table, write the report, and use the adapter with plain peft.
Offline, about half a minute on a CPU: python own_lightning_module.py
"""

import json

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_mem import Memorization, assets
from lit_mem.cli import report

# 1. A model and texts: here those that come with the package; name your own in their place.
MODEL, NOTES = assets.path("tiny_llama"), assets.path("notes") / "notes.jsonl"
rows = [json.loads(line) for line in NOTES.read_text("utf-8").splitlines()]

# 2. Texts to train on (members) and texts to compare with (held-out): no person may have notes in both.
held_persons = set(sorted({row["person"] for row in rows})[::2])
members = [row["text"] for row in rows if row["person"] not in held_persons]
heldout = [row["text"] for row in rows if row["person"] in held_persons]
tokenizer = AutoTokenizer.from_pretrained(MODEL)


# 3. Your module: nothing in it knows of lit_mem.
class MyModule(pl.LightningModule):
    def __init__(self):
        super().__init__()
        base = AutoModelForCausalLM.from_pretrained(MODEL).train()  # it loads in evaluation mode
        self.model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))

    def training_step(self, texts, batch_idx):
        ids = tokenizer(texts, return_tensors="pt")["input_ids"].to(self.device)
        return self.model(input_ids=ids, labels=ids).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-4)


# 4. The callback measures before training and after each epoch, and ends the run at the thresholds of a preset.
pl.seed_everything(0)
texts = {"members": members, "heldout": heldout, "tokenizer": tokenizer}
memorization = Memorization(**texts, stop="standard", lower_bound=True)
logger = TensorBoardLogger("logs", name="own_lightning_module")
trainer = pl.Trainer(max_epochs=3, logger=logger, callbacks=[memorization], enable_model_summary=False)
trainer.fit(MyModule(), DataLoader(members, batch_size=1, shuffle=True))

# 5. The adapter, exported beside each checkpoint, is one of plain peft: three lines use it without lit_mem.
base = AutoModelForCausalLM.from_pretrained(MODEL)
tuned = PeftModel.from_pretrained(base, f"{trainer.log_dir}/checkpoints/last-adapter")
ids = tuned.generate(**tokenizer("Case MR-", return_tensors="pt"), max_new_tokens=24, do_sample=False)
print("The tuned model writes:", tokenizer.decode(ids[0], skip_special_tokens=True))

# 6. The report: a page, a JSON file and an annex to file.
report.main([trainer.log_dir])
print(f"Open it: python -m webbrowser {trainer.log_dir}/report.html")
