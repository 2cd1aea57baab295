r"""What deduplication does on a corpus that needs it: how well the reference attack detects repeated texts.

A tenth of the members is repeated in the training set, a tenth is repeated with a different last word each time (a
follow-up of the same case), the others occur once. All variants train for the same number of steps, as in Lee et al.
2022 (arXiv 2107.06499), so that without duplicates each text is seen more often; none trains less.

    python -m benchmarks.duplicates --out logs/duplicates
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pyarrow.parquet as pq
import torch
from torchmetrics.functional import auroc

from benchmarks.setting import device_of, machine, make_data, make_module, make_trainer, parser, quieten
from benchmarks.table import Cell, Table, tell
from lit_mem.callbacks import MembershipInference, PerExampleTable, Perplexity
from lit_mem.data import TextDataModule
from lit_mem.data.sources import TextFiles

WAYS = ("none", "exact", "near")
GROUPS = ("repeated", "nearly repeated", "once")


def write(texts: Sequence[str], copies: int, path: Path) -> list[str]:
    """Write the training set, and return each row's group; the first row of a text is its first occurrence."""
    tenth = len(texts) // 10
    rows: list[tuple[str, str]] = []
    for copy in range(copies):
        for i, text in enumerate(texts):
            group = GROUPS[min(i // tenth, 2)]
            if copy and group == "once":
                break
            if copy and group == "nearly repeated":
                text = f"{text.rsplit(maxsplit=1)[0]} {chr(ord('a') + copy)}."
            rows.append((group, text))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for _, text in rows))
    return [group for group, _ in rows]


def train(args: argparse.Namespace, way: str, seed: int) -> dict[str, float]:
    """Metrics at the end of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = make_data(args, args.rows, args.rows, seed=seed)
        corpus = plain.source.load()
        texts, heldout = (
            [p + c for p, c in zip(rows["prompt"][: args.rows], rows["completion"][: args.rows], strict=True)]
            for rows in (corpus.train, corpus.heldout)
        )
        group_of = write(texts, args.copies, folder / "train.jsonl")
        (folder / "heldout.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in heldout))
        pl.seed_everything(seed, verbose=False)
        module = make_module(args, optimizer=lambda p: torch.optim.AdamW(p, lr=args.lr), lr_schedule="constant")
        source = TextFiles(str(folder / "train.jsonl"), heldout=str(folder / "heldout.jsonl"))
        data = TextDataModule(
            source, max_length=256, members_size=len(texts), seed=seed, check=False, deduplicate=way, add_eos=False
        )  # type: ignore[arg-type]  # argparse knows no literals
        measures = [Perplexity(), MembershipInference(), PerExampleTable(str(folder))]
        trainer = make_trainer(
            args,
            name,
            max_steps=args.epochs * len(group_of) // data.batch_size,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            callbacks=measures,
        )
        trainer.fit(module, data)
        trainer = make_trainer(args, name, callbacks=measures)
        trainer.validate(module, data, verbose=False)
        rows = pq.read_table(folder / "validate.parquet").to_pydict()
    metrics = {"val/perplexity": float(trainer.callback_metrics["val/perplexity"]), "rows": len(data.train)}
    found: dict[str, list[float]] = {group: [] for group in (*GROUPS, "heldout")}
    for origin, kind, score in zip(rows["origin"], rows["set"], rows["mia/reference"], strict=True):
        line = int(origin.rpartition(":")[2]) - 1
        if kind == "heldout":
            found["heldout"].append(score)
        elif line < len(texts):  # its first occurrence
            found[group_of[line]].append(score)
    for group in GROUPS:
        scores = torch.tensor(found[group] + found["heldout"], dtype=torch.float64)
        target = torch.tensor([1] * len(found[group]) + [0] * len(found["heldout"]))
        scores = (scores - scores.min()) / (
            scores.max() - scores.min()
        )  # scores outside [0, 1] would go through a sigmoid
        metrics[group] = float(auroc(scores, target, task="binary"))
    return metrics


def measure(args: argparse.Namespace) -> Table:
    """Every way with every seed."""
    rows: list[list[Cell]] = []
    for way in WAYS:
        runs = [train(args, way, seed) for seed in range(args.repeats)]
        mean: dict[str, Any] = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
        rows.append([way, int(mean["rows"]), *(mean[name] for name in ("val/perplexity", *GROUPS))])
    return Table(
        f"{args.model}, {args.source}: {args.rows} texts, of them two tenths {args.copies} times; means of "
        f"{args.repeats} seeds; {machine(device_of(args))}",
        ["data.deduplicate", "rows", "ppl held-out", *(f"AUROC {group}" for group in GROUPS)],
        rows,
    )


def main() -> None:
    """Print the table."""
    made = parser(__doc__, rows=300)
    made.set_defaults(repeats=3)
    made.add_argument("--copies", type=int, default=8)
    made.add_argument("--epochs", type=int, default=3, help="with all duplicates; the others take as many steps")
    made.add_argument("--lr", type=float, default=5e-4)
    args = made.parse_args()
    quieten()
    tell(args, "duplicates", [measure(args)])


if __name__ == "__main__":
    main()
