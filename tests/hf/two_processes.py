"""Scenarios for one process and two, for test_two_processes.py: `python two_processes.py FOLDER` on each rank."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from lit_mem import assets
from lit_mem.data.canaries import Secrets
from lit_mem.hf import MemorizationCallback, insert_canaries
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

TINY = "asset:tiny_llama"


def rows(tokenizer, split, n):
    return tokenized(tokenizer, texts(split, n))


def texts(split, n):
    lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()[:n]
    return [json.loads(line)["text"] for line in lines]


def tokenized(tokenizer, texts):
    return [{"input_ids": tokenizer(text)["input_ids"][:48]} for text in texts]


def trainer(folder, *callbacks, moved=False, epochs=1, train=None):
    tokenizer = load_tokenizer(TINY)
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["v_proj", "o_proj"])
    model = get_peft_model(load_base(TINY), config)
    if moved:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return Trainer(
        model,
        args=TrainingArguments(
            str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=2,
            learning_rate=5e-3,
            eval_strategy="epoch",
            save_strategy="epoch",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=tokenized(tokenizer, texts("train", 13) if train is None else train),
        eval_dataset=rows(tokenizer, "heldout", 11),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


def digest(made):
    data = b"".join(p.detach().numpy().tobytes() for p in made.model.parameters() if p.requires_grad)
    return hashlib.sha256(data).hexdigest()


def scenarios(folder):
    """Plain values by name."""
    found = {}
    measured = MemorizationCallback()
    trainer(folder / "moved", measured, moved=True).evaluate()
    found["metrics"] = {k: v for k, v in measured.live.metrics.items() if not k.startswith("time/")}
    train, canaries = insert_canaries(texts("train", 13), Secrets(17, repetitions=[1, 2]), load_tokenizer(TINY))
    watching = MemorizationCallback(suite="quick", canaries=canaries)
    trainer(folder / "canaries", watching, moved=True, train=train).evaluate()
    found["canaries"] = {k: v for k, v in watching.live.metrics.items() if k.startswith(("canary/", "audit/"))}
    plain = trainer(folder / "plain")
    plain.train()
    watched = trainer(
        folder / "watched", MemorizationCallback(suite="quick", stop="val/loss > 0", patience=2), epochs=3
    )
    watched.train()
    found["stopped"] = watched.state.global_step
    same = trainer(folder / "same", MemorizationCallback(suite="quick"))
    same.train()
    found["weights"] = [digest(plain), digest(same)]
    goes_on = trainer(
        folder / "watched", MemorizationCallback(suite="quick", stop="val/loss > 0", patience=3), epochs=9
    )
    goes_on.train(resume_from_checkpoint=True)
    found["stopped_again"] = goes_on.state.global_step
    whole = load_base(TINY).requires_grad_(True)
    tuned = trainer(folder / "whole", measured)
    tuned = Trainer(
        whole,
        args=tuned.args,
        train_dataset=tuned.train_dataset,
        eval_dataset=tuned.eval_dataset,
        data_collator=tuned.data_collator,
        processing_class=tuned.processing_class,
        callbacks=[measured],
    )
    tuned.train()
    found["whole"] = measured.live.metrics["mia/reference_auroc"]
    return found


if __name__ == "__main__":
    root = Path(sys.argv[1])
    made = scenarios(root)
    rank = os.environ.get("RANK", "0")
    (root / f"rank_{rank}.json").write_text(json.dumps(made))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
