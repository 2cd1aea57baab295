"""Lesson 3: see what transformers.Trainer makes a model memorize, and end training at a threshold.

You learn to add the callback to a plain Trainer, to set a threshold, and to write the report.
Offline, about half a minute on a CPU: python hf_trainer.py [folder for checkpoints and record]
"""

import json
import sys

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lit_mem import assets
from lit_mem.cli import report
from lit_mem.hf import MemorizationCallback

# 1. A model and texts: here those that come with the package; name your own in their place.
MODEL, NOTES = str(assets.path("tiny_llama")), assets.path("notes") / "notes.jsonl"
out = sys.argv[1] if len(sys.argv) > 1 else "logs/hf_trainer"
notes = [json.loads(line) for line in NOTES.read_text("utf-8").splitlines()]
tokenizer = AutoTokenizer.from_pretrained(MODEL)

# 2. Rows to train on and rows to compare with: no person may have notes in both.
held_persons = set(sorted({note["person"] for note in notes})[::2])


def rows(held: bool) -> Dataset:
    """Tokens, as Trainer takes them."""
    texts = [note["text"] for note in notes if (note["person"] in held_persons) is held]
    return Dataset.from_list([{"input_ids": tokenizer(text)["input_ids"]} for text in texts])


# 3. A model with an adapter, and the usual settings.
set_seed(0)
adapter = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"])
model = get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL), adapter)
settings = TrainingArguments(out, num_train_epochs=4, learning_rate=5e-3, eval_strategy="epoch", report_to="none")

# 4. One callback more: it measures before training and at every evaluation, and ends training at the threshold.
trainer = Trainer(
    model,
    settings,
    train_dataset=rows(held=False),
    eval_dataset=rows(held=True),
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    processing_class=tokenizer,
    callbacks=[MemorizationCallback(stop="standard", lower_bound=True)],
)
trainer.train()

# 5. The report: a page, a JSON file and an annex to file.
report.main([out])
print(f"Open it: python -m webbrowser {out}/memorization/report.html")
