r"""Question and answer from PHEE: memorization of answers, and of questions, which carry no loss.

A conversation of four turns: a sentence of a case report and "Which drug was given?", the drug, "What happened?", the
effect. The sentence's annotated spans are marked in the user's turn, drug and effect in the answers. LoRA is trained
twice for the same time: with the loss on the assistant's turns, and on the whole text.

    python -m benchmarks.chats
    python -m benchmarks.chats --model path/to/smollm2 --phee path/to/phee --rows 200 --epochs 5
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from datasets import Dataset, DatasetDict

from benchmarks.table import Table, tell
from lit_mem.adapters import LoRA
from lit_mem.data.chat.options import Chat, ChatLoss
from lit_mem.data.sources import PHEE, CaseReports
from lit_mem.files import record
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.models.hub import load_tokenizer

LOSSES: Final[tuple[ChatLoss, ...]] = ("assistant", "all")
SHOWN: Final = {
    "val/perplexity": "ppl held-out",
    "memorization/perplexity_members": "ppl members",
    "mia/reference_auroc": "AUROC by conversation",
    "turn/reference_auroc": "AUROC by turn",
    "turn/reference_auroc_low": "low",
    "turn/reference_auroc_high": "high",
    "extraction/span_rate": "spans scored",
    "extraction/span_rate_heldout": "held-out",
    "extraction/prompt_span_rate": "spans of questions",
    "extraction/prompt_span_rate_heldout": "held-out ",
    "extraction/prompt_span_rate_base": "base",
}


def main(words: Sequence[str] | None = None) -> list[Table]:
    """Train with each loss, and show one row per epoch."""
    options = _options(words)
    torch.set_num_threads(options.threads)
    rows = _rows(options)
    tables = []
    for loss in LOSSES:
        with tempfile.TemporaryDirectory() as folder:
            lines = _fit(options, rows, loss, Path(folder))
        title = f"loss on {loss}: {len(rows['train'])} members, {len(rows['heldout'])} held-out conversations"
        cells = [[str(line.epoch or "start"), *(line.metrics.get(name) for name in SHOWN)] for line in lines]
        tables.append(Table(title, ["epoch", *SHOWN.values()], cells))
        print(tables[-1].text(), flush=True)  # noqa: T201  (the second takes as long again)
    tell(options, "chats", tables)
    return tables


def _fit(options: argparse.Namespace, rows: DatasetDict, loss: ChatLoss, folder: Path) -> list[record.Line]:
    pl.seed_everything(options.seed, verbose=False)
    own = load_tokenizer(options.model).chat_template
    data = TextDataModule(
        rows,
        batch_size=options.batch,
        max_length=options.max_length,
        check=False,
        chat=Chat(loss, None if own else "asset:chatml"),
    )
    module = CausalLM(
        options.model,
        adapter=LoRA(rank=16, targets=["all-linear"], dropout=0.05),
        optimizer=lambda p: torch.optim.AdamW(p, lr=options.lr, weight_decay=0.0),
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=options.epochs, default_root_dir=folder, enable_progress_bar=False,
        logger=pl.loggers.CSVLogger(folder, "run"), enable_checkpointing=False, enable_model_summary=False,
        gradient_clip_val=1.0, callbacks=[Memorization(suite="quick")],
    )  # fmt: skip
    trainer.fit(module, data)
    return record.read(next(folder.rglob(record.FILE)))[0]


def _rows(options: argparse.Namespace) -> DatasetDict:
    corpus = (PHEE(folder=options.phee) if options.phee else CaseReports()).load()
    assert corpus.heldout is not None
    made = {}
    for name, rows in (("train", corpus.train), ("heldout", corpus.heldout)):
        talks = [talk for row in rows.shuffle(seed=options.seed) if (talk := _talk(row)) is not None]
        made[name] = Dataset.from_list(talks[: options.rows])
    return DatasetDict(made)


def _talk(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row as a conversation; None if it has no drug or no effect."""
    text, spans = row["completion"], row["spans"]
    answers = {}
    for kind in ("drug", "effect"):
        first = next((span for span in spans if span["type"] == kind), None)
        if first is None:
            return None
        answers[kind] = text[first["start"] : first["end"]]
    question = f"{text}\nWhich drug was given?"
    turns = [("user", question, spans), *_answer("drug", answers["drug"])]
    turns += [("user", "What happened?", []), *_answer("effect", answers["effect"])]
    return {"messages": [{"role": role, "content": said, "spans": marked} for role, said, marked in turns]}


def _answer(kind: str, said: str) -> list[tuple[str, str, list[dict[str, Any]]]]:
    return [("assistant", said, [{"type": kind, "start": 0, "end": len(said)}])]


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="asset:tiny_llama", help="folder or hub id")
    parser.add_argument("--phee", default=None, help="folder of PHEE; default: the bundled case reports")
    parser.add_argument("--rows", type=int, default=100, help="members, and as many held-out conversations")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
