"""TRL's SFTTrainer on prompts and completions, measured live; the best checkpoint is the one with the least leak."""

import json
import sys

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from lit_mem import assets
from lit_mem.hf import MemorizationCallback
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer


def rows(split: str) -> Dataset:
    """Some of the bundled case reports, in place of your own data."""
    lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()[:60]
    texts = [json.loads(line)["text"] for line in lines]
    cuts = [text.index(" ", 40) for text in texts]  # between words, so that no token spans both
    return Dataset.from_list([{"prompt": t[:n], "completion": t[n:]} for t, n in zip(texts, cuts, strict=True)])


settings = {"num_train_epochs": 3, "learning_rate": 5e-3, "report_to": "none", "max_length": 128, "bf16": False}
settings |= {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
settings |= {"metric_for_best_model": "eval_mia/reference_auroc", "greater_is_better": False}
trainer = SFTTrainer(
    load_base("asset:tiny_llama"),
    SFTConfig(sys.argv[1] if len(sys.argv) > 1 else "logs/trl_sft", activation_checkpointing=False, **settings),
    train_dataset=rows("train"),
    eval_dataset=rows("heldout"),
    processing_class=load_tokenizer("asset:tiny_llama"),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"]),
    callbacks=[MemorizationCallback()],
)
trainer.train()
trainer.evaluate()  # evaluates the best checkpoint
