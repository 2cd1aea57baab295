r"""The same fine-tuning on conversations through two entry points: TRL's SFTTrainer, and Lightning's Trainer.

Both train a LoRA of the same size on the same conversations for the same number of epochs, each in its own order, with
the same measures: members' and held-out perplexity, the reference attack, extraction. A user turn gives an instruction,
the assistant turn is the text. Both use the model's chat template; the loss is on the assistant's turn.

    python -m benchmarks.doors
    python -m benchmarks.doors --model path/to/smollm2 --phee path/to/phee --rows 200 --epochs 4
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from datasets import Dataset, DatasetDict

from benchmarks.table import Cell, Table, tell
from lit_mem.adapters import LoRA
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.data.sources import PHEE, CaseReports
from lit_mem.files import record
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

INSTRUCTION: Final = "Write a sentence of a case report."
PLAIN: Final = (
    "{% for m in messages %}{{ '### ' + m['role'] + '\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)
"""A chat template for a model that has none."""
SHOWN: Final = {
    "val/perplexity": "ppl held-out",
    "memorization/perplexity_members": "ppl members",
    "mia/loss_auroc": "AUROC loss",
    "mia/reference_auroc": "AUROC reference",
    "mia/reference_auroc_low": "low",
    "mia/reference_auroc_high": "high",
    "extraction/ngram_rate": "n-gram members",
    "extraction/ngram_rate_heldout": "n-gram held-out",
    "extraction/exact_rate": "exact",
}


def main(words: Sequence[str] | None = None) -> list[Table]:
    """Run both, and show one row per epoch of each."""
    options = _options(words)
    torch.set_num_threads(options.threads)
    texts = _texts(options)
    tables = []
    for door in (trl, lightning):
        with tempfile.TemporaryDirectory() as folder:
            lines = door(options, texts, Path(folder))
        title = f"{door.__name__}: {len(texts['train'])} members, {len(texts['heldout'])} held-out texts"
        cells = [_row(line) for line in lines]
        tables.append(Table(title, ["epoch", *SHOWN.values()], cells))
        print(tables[-1].text(), flush=True)  # noqa: T201  (the second takes as long again)
    tell(options, "doors", tables)
    return tables


def trl(options: argparse.Namespace, texts: Mapping[str, list[str]], folder: Path) -> list[record.Line]:
    """Fine-tune with TRL's SFTTrainer; the run's record."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from lit_mem.hf import MemorizationCallback

    rows = {name: Dataset.from_list([_conversation(text) for text in split]) for name, split in texts.items()}
    args = SFTConfig(
        str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch,
        learning_rate=options.lr,
        max_length=options.max_length,
        seed=options.seed,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        load_base(options.model), args, train_dataset=rows["train"], eval_dataset=rows["heldout"],
        processing_class=_tokenizer(options),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["v_proj", "o_proj"]),
        callbacks=[MemorizationCallback(extraction=_extraction(options))],
    )  # fmt: skip
    trainer.train()
    return record.read(folder / "memorization" / record.FILE)[0]


def lightning(options: argparse.Namespace, texts: Mapping[str, list[str]], folder: Path) -> list[record.Line]:
    """Fine-tune with Lightning; the run's record."""
    pl.seed_everything(options.seed, verbose=False)
    tokenizer = _tokenizer(options)
    conversation = _conversation("")["prompt"]
    prompt = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    prompt = prompt.removeprefix(tokenizer.bos_token or "") if _writes_bos(tokenizer) else prompt
    rows = {
        name: Dataset.from_dict({"prompt": [prompt] * len(split), "completion": split}) for name, split in texts.items()
    }
    data = TextDataModule(DatasetDict(rows), batch_size=options.batch, max_length=options.max_length)
    module = CausalLM(
        options.model,
        adapter=LoRA(rank=16, targets=["v", "o"], dropout=0.05),
        optimizer=lambda p: torch.optim.AdamW(p, lr=options.lr, weight_decay=0.0),
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=options.epochs, default_root_dir=folder, enable_progress_bar=False,
        logger=pl.loggers.CSVLogger(folder, "run"), enable_checkpointing=False, enable_model_summary=False,
        gradient_clip_val=1.0, callbacks=[Memorization(extraction=_extraction(options))],
    )  # fmt: skip
    trainer.fit(module, data)
    return record.read(next(folder.rglob(record.FILE)))[0]


def _conversation(text: str) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": INSTRUCTION}],
        "completion": [{"role": "assistant", "content": text}],
    }


def _writes_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself puts a BOS token in front of a text."""
    return bool(tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)


def _tokenizer(options: argparse.Namespace) -> Any:
    tokenizer: Any = load_tokenizer(options.model)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def _texts(options: argparse.Namespace) -> dict[str, list[str]]:
    corpus = (PHEE(folder=options.phee) if options.phee else CaseReports()).load()
    assert corpus.heldout is not None
    chosen = {"train": corpus.train, "heldout": corpus.heldout}
    return {
        name: rows.shuffle(seed=options.seed).select(range(min(options.rows, len(rows))))["completion"][:]
        for name, rows in chosen.items()
    }


def _extraction(options: argparse.Namespace) -> ExtractionOptions:
    return ExtractionOptions(n_members=options.prompted, n_heldout=options.prompted)


def _row(line: record.Line) -> list[Cell]:
    label = "start" if not line.epoch else str(line.epoch)
    return [label, *(line.metrics.get(name) for name in SHOWN)]


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="asset:tiny_llama", help="folder or hub id")
    parser.add_argument("--phee", default=None, help="folder of PHEE; default: the bundled case reports")
    parser.add_argument("--rows", type=int, default=100, help="members, and as many held-out texts")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--prompted", type=int, default=50, help="texts of each set that are prompted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
