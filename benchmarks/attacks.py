r"""All attacks on the same fine-tuned models: which detects members best, and by how much.

A model is fine-tuned as in a configuration (its model, adapter, optimizer, learning rate, batch size and text length)
for a fixed number of epochs, and every attack scores the same members and held-out texts: the defaults, EZ-MIA and WBC
as in their authors' code, `combined` (learned from the defaults, evaluated on the half of the texts that it was not
fitted on), the population attacks, and with `--probing` some that need more forward passes. Seeds differ in the draw of
members and held-out texts, the adapter's initial weights and the order of training.

All texts of the corpus form one pool, so that members and held-out texts differ only by chance. A share of its patients
(or articles) is reserved for the reference models of the population attacks, which are trained in the same way; members
and held-out texts are drawn from the others, by patient. Seeds draw from the same texts, which the intervals account
for (`benchmarks.paired_areas`).

With `--out` each seed's scores are stored there as parquet, and reused with the same options.

    python -m benchmarks.attacks --references 2 --probing lowercase --out logs/attacks
    python -m benchmarks.attacks --config smollm2_phee --model path/to/smollm2 --folder path/to/phee --rows 100 \
        --epochs 3 --references 0 --probing --out logs/attacks_smollm2
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from datasets import Dataset

from benchmarks.draws import Drawn, Pool
from benchmarks.paired_areas import Estimate, Scored, areas, differences
from benchmarks.setting import device_of, machine, make_trainer, now, options, quieten
from benchmarks.table import Cell, Table, tell
from lit_mem.adapters import LoRA
from lit_mem.attacks import (
    Attack,
    DeltaStandardized,
    EzMia,
    GradientNorm,
    Lowercase,
    OfflineLiRA,
    OfflineRMIA,
    ReCaLL,
    WindowComparison,
)
from lit_mem.audit.measures.membership import COMBINED, default_attacks
from lit_mem.callbacks import MembershipInference, PerExampleTable
from lit_mem.data import TextDataModule
from lit_mem.data.sources import PHEE, CaseReports
from lit_mem.functional.combine import half_split_scores
from lit_mem.functional.roc import tpr_at_fpr
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.reference_scores import Reference

HERE: Final = Path(__file__).parent
CONFIGS: Final = {"bundled": HERE / "bundled.yaml", "smollm2_phee": HERE.parent / "configs" / "smollm2_phee.yaml"}
FPR: Final = 0.01
SOURCES: Final = {"CaseReports": CaseReports, "PHEE": PHEE}
PROBING: Final = {
    "lowercase": Lowercase,
    "recall": ReCaLL,
    "gradient_norm": GradientNorm,
    "delta_standardized": DeltaStandardized,
}


class Recipe:
    """How a configuration trains."""

    def __init__(self, args: argparse.Namespace) -> None:
        config = yaml.safe_load(CONFIGS[args.config].read_text())
        self.args, self.model, self.data = args, config["model"], config["data"]
        self.model_id = args.model or self.model["model_id"]
        self.source = SOURCES[args.source or self.data["source"]["class_path"].split(".")[-1]]

    def fit(self, train: Dataset, heldout: Dataset, seed: int, folder: str) -> tuple[CausalLM, TextDataModule]:
        """A model after the last epoch, and its texts."""
        pl.seed_everything(seed, verbose=False)
        module = CausalLM(
            self.model_id,
            adapter=LoRA(**self.model["adapter"]["init_args"]),
            optimizer=lambda p: torch.optim.AdamW(p, **self.model["optimizer"]["init_args"]),
            lr_schedule=self.model.get("lr_schedule", "linear"),
            reference=Reference(cache=False),
        )
        sizes = {name: self.data[name] for name in ("batch_size", "max_length")}
        data = TextDataModule(Drawn(train, heldout), members_size=len(train), seed=seed, check=False, **sizes)
        trainer = make_trainer(
            self.args, folder, max_epochs=self.args.epochs, limit_val_batches=0, num_sanity_val_steps=0
        )
        trainer.fit(module, data)
        return module, data


def references(recipe: Recipe, pool: Pool, folder: Path) -> list[str]:
    """Folders of the reference models' adapters, trained if they do not exist yet."""
    made = []
    for number in range(recipe.args.references):
        place = folder / f"reference_{number}"
        if not (place / "adapter_config.json").exists():
            start = now()
            train, rest = pool.draw(pool.reserved, [recipe.args.rows, 2], f"reference {number}")
            module, _ = recipe.fit(train, rest, 1000 + number, str(folder))
            module.language_model.save_pretrained(str(place))
            _note(f"reference {number}: {now() - start:.0f} s")
        made.append(str(place))
    return made


def attacks(args: argparse.Namespace, models: list[str]) -> dict[str, Attack]:
    """All compared attacks, except the learned one."""
    made = default_attacks() | {"ez_mia_authors": EzMia(first=2, least=2), "wbc_authors": _wbc_of_its_authors()}
    if len(models) >= OfflineLiRA.fewest:
        made |= {"lira": OfflineLiRA(models), "rmia": OfflineRMIA(models), "rmia_a1": OfflineRMIA(models, a=1.0)}
    return made | {name: PROBING[name]() for name in args.probing}


def _wbc_of_its_authors() -> Attack:
    return WindowComparison(sizes=[2, 3, 4, 6, 9, 13, 18, 25, 32, 40], long="clamp", break_ties=False)


def score(recipe: Recipe, pool: Pool, models: list[str], seed: int) -> pa.Table:
    """Train with one seed, and score its texts: one row per text, with `mia/<attack>` columns."""
    args, start = recipe.args, now()
    train, heldout = pool.draw(pool.free, [args.rows, args.rows], f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        module, data = recipe.fit(train, heldout, seed, folder)
        trained = now()
        judged = MembershipInference(attacks(args, models), fprs=[FPR], combined=False, plots=False)
        trainer = make_trainer(args, folder, callbacks=[judged, PerExampleTable(folder)])
        trainer.validate(module, data, verbose=False)
        rows = pq.read_table(Path(folder) / "validate.parquet")
    _note(f"seed {seed}: trained in {trained - start:.0f} s, scored in {now() - trained:.0f} s")
    groups = [pool.group_of[origin] for origin in rows["origin"].to_pylist()]
    return rows.append_column("group", pa.array(groups)).append_column("seed", pa.array([seed] * len(rows)))


def scored(rows: pa.Table) -> Scored:
    """The scores of one seed, with those of the learned attack over the default ones."""
    member = np.array([kind == "member" for kind in rows["set"].to_pylist()])
    columns = {
        name.removeprefix("mia/"): rows[name].to_numpy().astype(float)
        for name in rows.column_names
        if name.startswith("mia/")
    }
    columns = {name: np.where(np.isfinite(column), column, np.nan) for name, column in columns.items()}
    learned = half_split_scores(
        {name: torch.from_numpy(columns[name]) for name in default_attacks()},
        torch.from_numpy(member),
        torch.tensor(rows["example_id"].to_pylist()),
    )
    return Scored(columns | {COMBINED: learned.numpy()}, member, rows["group"].to_pylist())


def table(args: argparse.Namespace, runs: Sequence[Scored]) -> Table:
    """One row per attack, strongest first."""
    area, gain = areas(runs), differences(runs, args.beside)
    rows: list[list[Cell]] = []
    for name in sorted(area, key=lambda name: -area[name].value):
        rates = [_rate(run, name) for run in runs]
        known = [rate for rate in rates if rate is not None]
        cells: list[Cell] = [f"`{name}`", _interval(area[name]), _each(area[name].runs)]
        cells += [f"{np.mean(known):.3f}" if known else "", _each(known)]
        above = "" if name == args.beside else f"{sum(d > 0 for d in gain[name].runs)}/{len(runs)}"
        rows.append([*cells, "" if name == args.beside else _interval(gain[name], sign="+"), above])
    halves = [int(np.isfinite(run.columns[COMBINED]).sum()) for run in runs]
    corpus = f"{args.config}, {args.source}" if args.source else args.config
    made = Table(
        f"{corpus}: {args.rows} members and as many held-out texts, {args.epochs} epochs, {len(runs)} seeds, "
        f"{args.references} reference models; {machine(device_of(args))}",
        ["attack", "AUROC", "each seed", f"TPR at {FPR:g} FPR", "each seed ", f"AUROC − {args.beside}", "seeds above"],
        rows,
    )
    made.notes.append(
        f"AUROC: mean over seeds [95 %, each for itself]; difference: [95 %, all {len(gain)} at once]. `{COMBINED}` is "
        f"evaluated on {halves[0]} texts per seed, and compared with `{args.beside}` on the same."
    )
    return made


def markdown(made: Table) -> str:
    """The table as Markdown."""
    lines = [made.columns, ["---"] * len(made.columns), *([str(cell) for cell in row] for row in made.rows)]
    return "\n".join(["", *(f"| {' | '.join(str(cell).strip() for cell in line)} |" for line in lines), ""])


def _rate(run: Scored, name: str) -> float | None:
    judged = np.isfinite(run.columns[name])
    column, member = torch.from_numpy(run.columns[name][judged]), torch.from_numpy(run.member[judged])
    return tpr_at_fpr(column, member, FPR)


def _interval(found: Estimate, sign: str = "") -> str:
    value, low, high = (f"{number:{sign}.3f}".replace("-", "−") for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _each(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def made_options() -> argparse.ArgumentParser:
    """The command-line options."""
    made = options(__doc__, repeats=3)
    made.add_argument("--config", choices=[*CONFIGS], default="bundled")
    made.add_argument("--model", help="folder or hub id; none: the configuration's")
    made.add_argument("--source", choices=SOURCES, help="the corpus; none: the configuration's")
    made.add_argument("--folder", help="of the corpus")
    made.add_argument("--rows", type=int, default=300, help="members, and as many held-out texts")
    made.add_argument("--epochs", type=int, default=7)
    made.add_argument("--references", type=int, default=4, help="models of the population attacks; 0: without these")
    made.add_argument("--reserved", type=float, default=0.4, help="share of the groups that reference models get")
    made.add_argument("--beside", default="reference", help="the attack that the others are compared with")
    made.add_argument("--probing", nargs="*", choices=PROBING, default=["lowercase", "recall", "gradient_norm"])
    return made


def measure(args: argparse.Namespace, folder: Path) -> list[Scored]:
    """All seeds; scores in the folder are reused.

    Raises:
        SystemExit: the folder has scores of other options.
    """
    quieten()
    kept = {
        name: str(value) for name, value in vars(args).items() if name not in ("out", "repeats", "device", "beside")
    }
    file = folder / "options.json"
    if file.exists() and json.loads(file.read_text()) != kept:
        raise SystemExit(f"{folder} holds scores of other options; expected {file.name} as {kept}")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n")
    recipe = Recipe(args)
    pool = Pool(recipe.source(args.folder), args.reserved)
    models = references(recipe, pool, folder)
    runs = []
    for seed in range(args.repeats):
        place = folder / f"seed_{seed}.parquet"
        if not place.exists():
            pq.write_table(score(recipe, pool, models, seed), place)
        runs.append(scored(pq.read_table(place)))
    return runs


def main(words: Sequence[str] | None = None) -> Table:
    """Print the table, once aligned and once as Markdown."""
    args = made_options().parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        made = table(args, measure(args, Path(folder) if args.out is None else args.out))
    tell(args, "attacks", [made])
    print(markdown(made))  # noqa: T201  (what a benchmark is for)
    return made


if __name__ == "__main__":
    main()
