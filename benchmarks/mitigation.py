r"""Effect and cost of each way to lower memorization: one run per way, on the same texts and canaries.

Utility is the perplexity of held-out texts. Memorization is the AUROC of the reference attack, how much of their texts
is extracted for members and held-out ones (n-gram rate; whole suffixes of members), and the audit's lower bound on
epsilon, from random-token canaries that fair coins insert once each. All at the end of a run; with early stopping,
where it stopped.

Private runs use steps of 64 texts and more epochs, since noise requires large steps. "clipped, no noise" is as long and
has no noise: it isolates the cost of clipping and step size.

With `--out` each run's metrics are stored there, and reused by the same command.

    python -m benchmarks.mitigation --out logs/mitigation
    python -m benchmarks.mitigation --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 150 \
        --epochs 5 --private_epochs 5 --canaries 100 --floor 2.5 --repeats 1 --out logs/mitigation_phee
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.setting import device_of, machine, make_data, make_trainer, parser, quieten
from benchmarks.table import Cell, Table, tell
from lit_mem.adapters import LoRA
from lit_mem.callbacks import (
    Extraction,
    MembershipInference,
    MemorizationEarlyStopping,
    Perplexity,
    PrivacyAudit,
)
from lit_mem.data.canaries import RandomTokens
from lit_mem.lightning.module import CausalLM
from lit_mem.privacy import DPSGD
from lit_mem.training.objective import TrainingLoss

STEP = 64
SHOWN = {
    "val/perplexity": "ppl held-out",
    "memorization/perplexity_members": "ppl members",
    "mia/reference_auroc": "AUROC",
    "extraction/ngram_rate": "n-gram members",
    "extraction/ngram_rate_heldout": "n-gram held-out",
    "extraction/exact_rate": "whole suffix",
    "audit/epsilon_lower_bound": "audit: eps >=",
    "privacy/epsilon": "claim: eps <=",
    "epochs": "epochs",
}


@dataclass
class Way:
    """One way to train.

    Attributes:
        epochs: maximum; 0 is the base model.
        model: options of the module.
        data: options of the data.
        lora: options of the adapter.
        stop: a threshold at which training ends; None: no threshold.
    """

    epochs: int
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    stop: str | None = None


def ways(args: argparse.Namespace) -> dict[str, Way]:
    """All, by name."""

    def plain(**options: Any) -> Way:
        return Way(args.epochs, **options)

    def loss(**options: Any) -> Way:
        return plain(model={"loss": TrainingLoss(**options)})

    def private(**options: Any) -> Way:
        return Way(args.private_epochs, model={"privacy": DPSGD(batch_size=STEP, **options)})

    return {
        "untrained": Way(0),
        "none": plain(),
        "early stopping, AUROC > 0.6": plain(stop="mia/reference_auroc > 0.6"),
        "rank 2": plain(lora={"rank": 2}),
        "dropout 0.5": plain(lora={"dropout": 0.5}),
        "deduplicated, near": plain(data={"deduplicate": "near"}),
        "goldfish, k = 4": loss(goldfish_k=4),
        "goldfish, k = 2": loss(goldfish_k=2),
        f"floor {args.floor:g}": loss(floor=args.floor),
        "clipped, no noise": private(noise_multiplier=0.0),
        "epsilon 8": private(target_epsilon=8),
        "epsilon 3": private(target_epsilon=3),
        "epsilon 1": private(target_epsilon=1),
    }


def train(args: argparse.Namespace, way: Way, seed: int) -> dict[str, float]:
    """Metrics at the end of one run."""
    pl.seed_everything(seed, verbose=False)
    module = CausalLM(
        args.model,
        adapter=LoRA(**{"rank": 16, "targets": ["all-linear"], "dropout": 0.0, **way.lora}),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=args.lr),
        lr_schedule="constant",
        **way.model,
    )
    data = make_data(args, args.rows, args.rows, seed=seed, canaries=RandomTokens(args.canaries, seed=seed), **way.data)
    callbacks: list[Any] = [Perplexity(), MembershipInference(), Extraction(), PrivacyAudit()]
    if way.stop is not None:
        callbacks.append(MemorizationEarlyStopping([way.stop]))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            args,
            folder,
            max_epochs=way.epochs,
            check_val_every_n_epoch=1 if way.stop is not None else max(1, way.epochs),
            callbacks=callbacks,
            num_sanity_val_steps=0,
        )
        if way.epochs:
            trainer.fit(module, data)
        else:
            trainer.validate(module, data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()} | {"epochs": trainer.current_epoch}


def kept(args: argparse.Namespace, name: str, way: Way, seed: int) -> dict[str, float]:
    """The same, from `--out` if it exists."""
    if args.out is None:
        return train(args, way, seed)
    options = {key: str(value) for key, value in sorted(vars(args).items()) if key not in ("out", "only", "repeats")}
    key = hashlib.sha256(json.dumps([options, name, seed]).encode()).hexdigest()[:16]
    file = args.out / "runs" / f"{key}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"way": name, "seed": seed, "options": options, "metrics": train(args, way, seed)}, indent=1)
        file.write_text(text + "\n")
    metrics: dict[str, float] = json.loads(file.read_text())["metrics"]
    return metrics


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Every way with every seed; each is shown when done, since all together take long."""
    chosen = ways(args)
    if args.only:
        chosen = {name: way for name, way in chosen.items() if any(part in name for part in args.only)}
    found: dict[str, list[dict[str, float]]] = {}
    for name, way in chosen.items():
        found[name] = [kept(args, name, way, seed) for seed in range(args.repeats)]
        tell(argparse.Namespace(out=None), "mitigation", [table(args, {name: found[name]})])
    return found


def table(args: argparse.Namespace, found: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    """Means over seeds, and the maximum deviation of a seed."""
    rows: list[list[Cell]] = []
    for name, runs in found.items():
        cells: list[Cell] = [name]
        for figure in SHOWN:
            values = [run[figure] for run in runs if figure in run]
            cells.append(statistics.mean(values) if values else None)
        rows.append(cells)
    aurocs = [[run["mia/reference_auroc"] for run in runs] for runs in found.values()]
    spread = max((abs(each - statistics.mean(seeds)) for seeds in aurocs for each in seeds), default=0.0)
    made = Table(
        f"{args.model}, {args.source}: {args.rows} texts and {args.canaries} canaries, {args.epochs} epochs "
        f"({args.private_epochs} private); means of {args.repeats} seeds; {machine(device_of(args))}",
        ["", *SHOWN.values()],
        rows,
    )
    made.notes.append(f"The AUROC of one seed is at most {spread:.3f} from the mean.")
    return made


def plot(made: Table) -> Any:
    """Utility against memorization: one point per way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (heading, label) in zip(
        axes, [("AUROC", "AUROC of the reference attack"), ("audit: eps >=", "audit: lower bound on ε")], strict=True
    ):
        for i, row in enumerate(made.rows):
            cells = dict(zip(made.columns, row, strict=True))
            axis.scatter(
                cells[heading], cells["ppl held-out"], marker="os^DvP*X<>ph8"[i % 13], s=45, color=f"C{i % 10}",
                label=f"{row[0]}",
            )  # fmt: skip
        axis.set_xlabel(f"{label}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("perplexity of held-out texts")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = parser(__doc__, rows=300)
    made.set_defaults(repeats=3)
    made.add_argument("--epochs", type=int, default=7)
    made.add_argument("--private_epochs", type=int, default=20)
    made.add_argument("--lr", type=float, default=5e-4)
    made.add_argument("--canaries", type=int, default=200)
    made.add_argument("--floor", type=float, default=1.0, help="nats a token")
    made.add_argument("--only", nargs="*", help="ways whose names have one of these parts")
    return made


def main() -> None:
    """Print the table, and draw it."""
    args = options().parse_args()
    quieten()
    made = table(args, measure(args))
    tell(args, "mitigation", [made])
    if args.out is not None:
        plot(made).savefig(args.out / "mitigation.png", dpi=110)


if __name__ == "__main__":
    main()
