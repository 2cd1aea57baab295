r"""How well canaries of each kind are detected: the audit's bound on epsilon, AUROC, exposure and extraction rate.

One run per kind and seed, on the same texts: half of the canaries, by fair coins, are in the training set once. All
kinds run with LoRA of rank 16 on all layers, and some with all weights trained, which new tokens require. Metrics are
those at the end of a run.

    python -m benchmarks.canaries --repeats 2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence

import lightning.pytorch as pl
import torch

from benchmarks.setting import device_of, machine, make_data, make_trainer, parser, quieten
from benchmarks.table import Cell, Table, tell
from lit_mem.adapters import FullFineTuning, LoRA
from lit_mem.callbacks import Canaries, PrivacyAudit
from lit_mem.data.canaries import Bigram, CanarySource, NewTokens, RandomTokens, Secrets, Unigram, UnlikelySuffix
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.reference_scores import Reference

SHOWN = {
    "audit/epsilon_lower_bound": "eps >=",
    "audit/accuracy": "guessed right",
    "canary/auroc": "AUROC",
    "canary/exposure_mean": "exposure",
    "canary/extraction_rate": "extracted",
}
KINDS: dict[str, Callable[[int, int], CanarySource]] = {
    "Secrets": lambda n, seed: Secrets(n, repetitions=[1], seed=seed),
    "RandomTokens": lambda n, seed: RandomTokens(n, seed=seed),
    "Unigram": lambda n, seed: Unigram(n, seed=seed),
    "Bigram": lambda n, seed: Bigram(n, seed=seed),
    "UnlikelySuffix": lambda n, seed: UnlikelySuffix(n, seed=seed),
    "NewTokens": lambda n, seed: NewTokens(n, seed=seed),
}
FULL = " (all weights)"


def cases(only: Sequence[str] | None) -> list[str]:
    """Names of the compared cases."""
    every = [*(name for name in KINDS if name != "NewTokens"), *(f"{name}{FULL}" for name in _WITH_ALL_WEIGHTS)]
    return [name for name in every if not only or any(part in name for part in only)]


_WITH_ALL_WEIGHTS = ("RandomTokens", "Unigram", "NewTokens")


def train(args: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    """Metrics at the end of one run."""
    pl.seed_everything(seed, verbose=False)
    full = name.endswith(FULL)
    module = CausalLM(
        args.model,
        adapter=FullFineTuning() if full else LoRA(rank=16, targets=["all-linear"], dropout=0.0),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=args.full_lr if full else args.lr),
        lr_schedule="constant",
        reference=Reference(cache=False),
    )
    source = KINDS[name.removesuffix(FULL)](args.canaries, seed)
    data = make_data(args, args.rows, 8, seed=seed, members_size=min(8, args.rows), canaries=source)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            args,
            folder,
            max_epochs=args.epochs,
            check_val_every_n_epoch=args.epochs,
            callbacks=[Canaries(), PrivacyAudit()],
            num_sanity_val_steps=0,
        )
        trainer.fit(module, data)
    return {metric: float(trainer.callback_metrics[metric]) for metric in SHOWN}


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Every kind with every seed; each is shown when done."""
    found: dict[str, list[dict[str, float]]] = {}
    for name in cases(args.only):
        found[name] = [train(args, name, seed) for seed in range(args.repeats)]
        tell(argparse.Namespace(out=None), "canaries", [table(args, {name: found[name]})])
    return found


def table(args: argparse.Namespace, found: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    """A row for each kind and seed, and one with the mean over the seeds."""
    rows: list[list[Cell]] = []
    for name, runs in found.items():
        rows += [[f"{name}, seed {seed}", *(run[metric] for metric in SHOWN)] for seed, run in enumerate(runs)]
        rows.append([f"{name}, mean", *(statistics.mean(run[metric] for run in runs) for metric in SHOWN)])
    title = (
        f"{args.model}, {args.source}: {args.canaries} canaries, once each by fair coins, beside {args.rows} texts; "
        f"{args.epochs} epochs; {machine(device_of(args))}"
    )
    return Table(title, ["", *SHOWN.values()], rows)


def options() -> argparse.ArgumentParser:
    """The command-line options."""
    made = parser(__doc__, rows=100)
    made.set_defaults(repeats=2)
    made.add_argument("--epochs", type=int, default=5)
    made.add_argument("--lr", type=float, default=2e-3, help="with LoRA")
    made.add_argument("--full_lr", type=float, default=1e-3, help="with all weights trained")
    made.add_argument("--canaries", type=int, default=200)
    made.add_argument("--only", nargs="*", help="kinds whose names have one of these parts")
    return made


def main() -> None:
    """Print the table."""
    args = options().parse_args()
    quieten()
    tell(args, "canaries", [table(args, measure(args))])


if __name__ == "__main__":
    main()
