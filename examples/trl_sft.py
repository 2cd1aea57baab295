"""Lesson 2: see what TRL's SFTTrainer makes a model memorize, and keep the checkpoint that leaks least.

You learn to add the callback to a trainer that you have, to choose the checkpoint by a metric, and to write the report.
Offline, about a minute on a CPU: python trl_sft.py [folder for checkpoints and record]
"""

import json
import sys

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from lit_mem import assets
from lit_mem.cli import report
from lit_mem.hf import MemorizationCallback

# 1. A model and texts: here those that come with the package; name your own in their place.
MODEL, NOTES = str(assets.path("tiny_llama")), assets.path("notes") / "notes.jsonl"
out = sys.argv[1] if len(sys.argv) > 1 else "logs/trl_sft"
notes = [json.loads(line) for line in NOTES.read_text("utf-8").splitlines()]

# 2. Rows to train on and rows to compare with: no person may have notes in both.
held_persons = set(sorted({note["person"] for note in notes})[::2])


def rows(held: bool) -> Dataset:
    """Prompts and completions, as TRL takes them: the loss, and so what is measured, is on the completion."""
    texts = [note["text"] for note in notes if (note["person"] in held_persons) is held]
    cuts = [text.index(" ", 40) for text in texts]  # between words, so that no token belongs to both
    return Dataset.from_list([{"prompt": t[:n], "completion": t[n:]} for t, n in zip(texts, cuts, strict=True)])


# 3. The usual settings of TRL; the last two choose the best checkpoint by a metric that the callback logs.
settings = SFTConfig(
    out,
    num_train_epochs=3,
    learning_rate=5e-3,
    max_length=128,
    bf16=False,
    activation_checkpointing=False,
    report_to="none",
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    metric_for_best_model="eval_mia/reference_auroc",
    greater_is_better=False,
)

# 4. One callback more: it measures before training and at every evaluation, on rows of both datasets.
trainer = SFTTrainer(
    AutoModelForCausalLM.from_pretrained(MODEL),
    settings,
    train_dataset=rows(held=False),
    eval_dataset=rows(held=True),
    processing_class=AutoTokenizer.from_pretrained(MODEL),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"]),
    callbacks=[MemorizationCallback()],
)
trainer.train()
best = trainer.evaluate()  # of the checkpoint that was the best
print(f"AUROC of the best checkpoint: {best['eval_mia/reference_auroc']:.3f}")

# 5. The report: a page, a JSON file and an annex to file.
report.main([out])
print(f"Open it: python -m webbrowser {out}/memorization/report.html")
