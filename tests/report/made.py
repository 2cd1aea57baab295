"""Folders of runs and sweeps as training leaves them, small and with numbers that differ."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CONFIG = """
seed_everything: 0
trainer:
  max_epochs: 3
  callbacks:
  - class_path: lit_mem.callbacks.MemorizationEarlyStopping
    init_args:
      thresholds: [{limits}]
      stop_when: any
      lower_bound: {lower_bound}
model:
  model_id: asset:tiny_llama
  adapter: {{class_path: lit_mem.adapters.LoRA, init_args: {{rank: 4}}}}
data:
  source: {{class_path: lit_mem.data.sources.CaseReports}}
  train_size: 60
  check: true
"""
PERPLEXITY = (3.2407, 3.1248, 2.9834, 2.9414)
MEMBERS = (3.3151, 3.1329, 2.9293, 2.8342)
AUROC = (0.5, 0.6658, 0.7019, 0.6512)
HALF = 0.01
"""Half the width of the interval of each AUROC: against a limit of 0.68 they are within, within, over, within."""


def write_run(
    folder,
    limits="mia/reference_auroc > 0.68",
    epochs=3,
    origin="train.jsonl",
    table=True,
    text=False,
    lower_bound=False,
    first=0,
):
    """A run of `epochs` epochs, with a training row between validations, as Lightning logs them.

    Args:
        first: epoch of its first validation: 0, or later in a run that was resumed.
    """
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(limits=limits, lower_bound=str(lower_bound).lower()))
    rows = []
    for epoch in range(first, epochs + 1):
        if epoch:
            rows.append({"epoch": epoch - 1, "step": 10 * epoch - 5, "train/loss": 1.0 / epoch})
        rows.append(
            {
                "epoch": epoch - 1 if epoch else "",
                "step": 10 * epoch - 1 if epoch else 0,
                "val/perplexity": PERPLEXITY[epoch],
                "memorization/perplexity_members": MEMBERS[epoch],
                "mia/reference_auroc": AUROC[epoch],
                "mia/reference_auroc_low": AUROC[epoch] - HALF,
                "mia/reference_auroc_high": AUROC[epoch] + HALF,
                "mia/loss_auroc": "nan",
                "extraction/ngram_rate": 0.2 + epoch / 100,
                "extraction/ngram_rate_heldout": 0.21,
                "extraction/exact_rate": 0.0 if epoch == 1 else "",
            }
        )
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = sorted({name for row in rows for name in row})
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    if table:
        write_table(folder / "examples" / f"epoch_{epochs:04d}_step_{10 * epochs:06d}.parquet", origin, epochs, text)
    return folder


def write_table(path, origin, epoch, text=False, n=60):
    rng = np.random.default_rng(0)
    member = np.arange(2 * n) < n
    columns = {
        "example_id": np.arange(2 * n),
        "origin": [f"{origin}:{i}" for i in range(2 * n)],
        "set": ["member" if m else "heldout" for m in member],
        "epoch": np.full(2 * n, epoch),
        "duplicates": np.zeros(2 * n, dtype=int),
        "perplexity": np.exp(rng.normal(1, 0.3, 2 * n)),
        # Rounded, so that some scores are tied.
        "mia/reference": np.round(rng.normal(0.6 * member, 1), 1),
        "mia/loss": rng.normal(0.2 * member, 1),
        "extraction/ngram_rate": [None if i % 3 else float(v) for i, v in enumerate(rng.uniform(size=2 * n))],
    }
    if text:
        columns["text"] = [f"secret text {i}" for i in range(2 * n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_persons(folder, n=14):
    """The table of persons of the last validation, most exposed first."""
    rows = [
        {
            "person": f"{i:016x}",
            "set": "member",
            "epoch": 3,
            "step": 30,
            "rows": 3 + i,
            "rows_scored": 2,
            "extracted": max(0, 3 - i),
            "mia/reference_highest": 0.91 - i / 100,
            "mia/reference_mean": 0.5,
        }
        for i in range(n)
    ]
    path = folder / "persons" / "epoch_0003_step_000030.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_checks(folder, **more):
    """What the data module leaves of 60 members and 60 held-out texts that share nothing."""
    counts = ("repeats_exact", "repeats_normalized", "shared_exact", "shared_normalized", "shared_near")
    checks = {name: 0 for name in (*counts, "shared_groups", "shared_group_rows")}
    checks |= {"n_members": 60, "n_heldout": 60, "near_jaccard": 0.7, "grouped": False, "shift": None}
    checks |= {"examples": {}, "verdict": "not measured", "warnings": [], "summary": ["Members: 60 rows."]}
    (folder / "checks.json").write_text(json.dumps(checks | more))


def write_adapter(folder, name, epoch):
    """The folder that a checkpoint has beside it, as far as a report reads it."""
    where = folder / "checkpoints" / f"{name}-adapter"
    where.mkdir(parents=True)
    (where / "lit_mem.json").write_text(json.dumps({"epoch": epoch, "global_step": 10 * epoch}))


def write_where(folder):
    def three(value):
        return {"auroc": value, "perplexity_members": 2 + value, "ngram_rate": None}

    (folder / "where.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "checkpoint": "checkpoints/best.ckpt",
                "members": 60,
                "heldout": 60,
                "baseline": three(0.85),
                "all_off": three(0.5),
                "matrices": ["q_proj", "v_proj"],
                "layers": [0, 1],
                "layer_matrix": {
                    "auroc": [[0.8, 0.61], [0.84, None]],
                    "perplexity_members": [[2.8, 2.6], [2.7, 2.9]],
                    "ngram_rate": None,
                },
                "by_matrix": {"q_proj": three(0.79), "v_proj": three(0.6)},
                "by_layer": {"0": three(0.58), "1": three(0.7)},
            }
        )
    )


def write_sweep(folder, failed="out of memory <b>here</b>"):
    """Ranks by matrices over three seeds, the last trial failed."""
    folder.mkdir(parents=True)
    axes = [{"label": "matrices", "values": ["q", "v", "v,o"]}, {"label": "rank", "values": [1, 4, 16]}]
    cells = [(m, r, s) for m in axes[0]["values"] for r in axes[1]["values"] for s in (0, 1, 2)]
    trials, rows = [], []
    for i, (matrices, rank, seed) in enumerate(cells, start=1):
        last = i == len(cells)
        trials.append(
            {
                "trial": f"t{i:04d}",
                "values": {"matrices": matrices, "rank": rank},
                "seed": seed,
                "status": "failed" if last else "done",
                "error": failed if last else None,
                "folder": f"trials/t{i:04d}",
            }
        )
        strength = {"q": 0.5, "v": 1.1, "v,o": 2.0}[matrices] * rank**0.5
        for epoch in range(0 if last else 4):
            rows.append(
                {
                    "trial": f"t{i:04d}",
                    "seed": seed,
                    "epoch": epoch,
                    "step": 10 * epoch,
                    "matrices": matrices,
                    "rank": rank,
                    "trainable_parameters": 1000 * rank * len(matrices),
                    "val/perplexity": 3.2 - 0.03 * epoch * strength**0.5 + 0.004 * seed,
                    "memorization/perplexity_members": 3.2 - 0.05 * epoch * strength**0.5,
                    "mia/reference_auroc": 0.5 + 0.02 * epoch * strength**0.5 + 0.004 * seed,
                    "extraction/ngram_rate": 0.2 + 0.001 * epoch * strength,
                }
            )
    sweep = {
        "schema": 1,
        "name": "matrices",
        "question": "matrices",
        "command": "python train.py sweep --config configs/sweeps/matrices.yaml",
        "axes": axes,
        "seeds": [0, 1, 2],
        "trials": trials,
    }
    (folder / "sweep.json").write_text(json.dumps(sweep))
    pq.write_table(pa.Table.from_pylist(rows), folder / "results.parquet")
    finding = {
        "question": "matrices",
        "statement": "Value and output matrices memorize more than query matrices at equal rank.",
        "verdict": "holds",
        "test": "paired t-test over seeds",
        "estimate": 0.031,
        "low": 0.012,
        "high": 0.05,
        "p_value": 0.004,
        "n_seeds": 3,
        "n_findings": 1,
        "level": 0.95,
        "seeds_to_decide": None,
        "more_than_seeds": None,
        "note": "",
    }
    guidance = {
        "metric": "mia/reference_auroc",
        "limit": 0.6,
        "best": {"matrices": "v", "rank": 4, "epoch": 2},
        "front": [],
        "note": "Of the configurations that were tried.",
    }
    (folder / "findings.json").write_text(json.dumps({"schema": 1, "findings": [finding], "guidance": guidance}))
    return folder
