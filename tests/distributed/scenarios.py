"""Scenarios for one process and two, for test_two_processes.py: `python scenarios.py FOLDER` on each of two ranks.

Each scenario is a function of the strategy that returns plain metrics; all run in the same processes, as starting
these takes longer than all scenarios.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import logging
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from peft import LoraConfig, get_peft_model
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from lit_mem.adapters import LoRA
from lit_mem.attacks import ConReCaLL, Loss, Lowercase, ReCaLL, ReferenceRatio
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.gather import gathered
from lit_mem.callbacks import (
    Baseline,
    Canaries,
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Movers,
    Perplexity,
    PrivacyAudit,
    Slices,
    SlidingExtraction,
    SpanExtraction,
)
from lit_mem.data.canaries import Traps
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.errors import ConfigError
from lit_mem.lightning.auditing import audit_of, latest_metrics
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer
from lit_mem.privacy import DPSGD
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.summed import export
from lit_mem.scoring.reference_scores import Reference
from lit_mem.sharding import ShardedBase
from lit_mem.types import Sampling

LIMIT = timedelta(seconds=300)  # a hanging rank fails the test
STRATEGIES = {
    "one": lambda: "auto",
    "ddp": lambda: DDPStrategy(timeout=LIMIT),
    "sharded": lambda: ShardedBase(timeout=LIMIT),
    "copies": lambda: ShardedBase(ranks_per_copy=1, timeout=LIMIT),
}


class KeptMetrics(Callback):
    """Keeps the metrics of each validation, except timings."""

    def __init__(self):
        self.all = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            names = [name for name in trainer.callback_metrics if not name.startswith(("time/", "train/"))]
            self.all.append({name: float(trainer.callback_metrics[name]) for name in sorted(names)})


def measures():
    return [
        Perplexity(),
        MembershipInference(),
        Extraction(n_members=7, n_heldout=5),
        Extraction(n_members=3, n_heldout=2, sampling=Sampling(temperature=0.8, top_k=5), group="sampled"),
        Extractability(),
        SpanExtraction(),
        Correlation(),
        Movers(),
        Slices(min_size=3),
    ]


def trainer(strategy, folder, callbacks, **options):
    return pl.Trainer(
        accelerator="cpu",
        devices=1 if strategy == "one" else 2,
        strategy=STRATEGIES[strategy](),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=any(isinstance(c, MemorizationCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **({"max_epochs": 3, "num_sanity_val_steps": -1} | options),
    )


def module(adapter_path=None, dropout=0.1, **more):
    torch.manual_seed(3)
    more = {"reference": Reference(cache=False)} | more
    return CausalLM(
        "asset:tiny_llama",
        adapter=LoRA(rank=4, dropout=dropout),
        adapter_path=adapter_path,
        optimizer=lambda p: torch.optim.AdamW(p, lr=2e-2),
        **more,
    )


def data(**sizes):
    # 21 and 17 examples do not divide evenly: a batch is repeated, and must count once.
    sizes = {"train_size": 21, "heldout_size": 17, "scoring_tokens": 300, "batch_size": 3, "max_length": 64} | sizes
    return TextDataModule(CaseReports(), check=False, **sizes)


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def fit(strategy, folder):
    """Train until a threshold is exceeded: metrics, early stopping and checkpoints."""
    kept, stop = KeptMetrics(), MemorizationEarlyStopping(["mia/reference_auroc > 0.6"], patience=2)
    keep = MemorizationCheckpoint(dirpath=str(folder / f"{strategy}_fit"))
    model = module()
    run = trainer(strategy, folder, [*measures(), Baseline(), stop, keep, kept])
    run.fit(model, data())
    torch.save(trained(model), folder / f"{strategy}_weights_{run.global_rank}.pt")
    in_layers = [p for p in model.parameters() if isinstance(p, DTensor)]
    return {
        "metrics": kept.all,
        "stopped": stop.reason,
        "epochs": run.current_epoch,
        "kept": keep.epochs,
        "rows here": sum(p.to_local().numel() for p in in_layers),
        "rows": sum(p.numel() for p in in_layers),
    }


def validate(strategy, folder, callbacks=None, sizes=None, **more):
    """Validate the adapter that two processes have trained."""
    kept = KeptMetrics()
    run = trainer(strategy, folder, [*(callbacks or measures()), kept])
    run.validate(module(str(folder / "ddp_fit" / "last-adapter"), **more), data(**(sizes or {})), verbose=False)
    return kept.all[0]


def few(strategy, folder):
    """Fewer texts than ranks in one set."""
    callbacks = [Perplexity(), MembershipInference(), Extraction()]
    return validate(strategy, folder, callbacks, {"train_size": 3, "heldout_size": 2, "members_size": 1})


def probing(strategy, folder):
    """Probing attacks, whose number of forward passes depends on the batch."""
    attacks = {"loss": Loss(), "recall": ReCaLL(shots=1), "con": ConReCaLL(shots=1), "lower": Lowercase()}
    return validate(strategy, folder, [MembershipInference(attacks, combined=False)])


def documents(strategy, folder):
    """Texts in windows: the number of passes depends on the batch."""
    sizes = {"max_length": 52, "chunk": {"tokens": 24, "stride": 9}, "scoring_tokens": 120}
    attacks = {"loss": Loss(), "reference": ReferenceRatio(), "lower": Lowercase()}
    callbacks = [Perplexity(), MembershipInference(attacks, combined=False), SlidingExtraction(6, 4), SpanExtraction()]
    return validate(strategy, folder, [*callbacks, Extraction(n_members=4, n_heldout=3)], sizes)


def copied(strategy, folder):
    """The reference is a second copy of the model."""
    callbacks = [MembershipInference({"reference": ReferenceRatio()}), Extraction(n_members=5, n_heldout=4)]
    return validate(strategy, folder, callbacks, reference=Reference(kind="copy", cache=False))


def stored(strategy, folder):
    """Reference scores of some batches are on disk: after one pass half of the files are removed."""
    callbacks = [MembershipInference({"reference": ReferenceRatio()}), SpanExtraction()]
    os.environ["LIT_MEM_CACHE"] = str(folder / f"{strategy}_store")
    first = validate(strategy, folder, callbacks, reference=Reference(cache=True))
    files = sorted((folder / f"{strategy}_store").rglob("*.safetensors"))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        for file in files[::3]:
            file.unlink()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    callbacks = [MembershipInference({"reference": ReferenceRatio()}), SpanExtraction()]
    second = validate(strategy, folder, callbacks, reference=Reference(cache=True))
    assert first == second
    return second | {"files": len(files)}


def canaries(strategy, folder):
    """Canaries of a source that one process samples for all, scored on both."""
    callbacks = [Canaries(), PrivacyAudit(guesses=[6, 11]), Perplexity()]
    made = Traps(22, length=12, perplexities=[1, 10, 1000], repetitions=[1, 3])
    return validate(strategy, folder, callbacks, {"train_size": 9, "heldout_size": 7, "canaries": made})


class Interrupt(Callback):
    """Ends training after its last checkpoint, like a killed job."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise KeyError("killed")


def resume(strategy, folder):
    """Weights after an interruption; the other strategy resumes."""
    other = {"ddp": "sharded", "sharded": "ddp"}[strategy]
    weights = []
    for name, callbacks in (("whole", []), ("cut", [Interrupt()])):
        keep = MemorizationCheckpoint(dirpath=str(folder / f"{strategy}_{name}"))
        model = module()
        try:
            trainer(strategy, folder, [Perplexity(), keep, *callbacks]).fit(model, data())
        except KeyError:
            torch.manual_seed(99)
            model = module()
            keep = MemorizationCheckpoint(dirpath=str(folder / f"{strategy}_cut"))
            last = str(folder / f"{strategy}_cut" / "last.ckpt")
            trainer(other, folder, [Perplexity(), keep]).fit(model, data(), ckpt_path=last, weights_only=True)
        weights.append(trained(model))
    return {"same": all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])}


class Gradients(Callback):
    """Gradients by step, and the number of this process's texts."""

    def __init__(self):
        self.all, self.texts = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.all.append(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.requires_grad]))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.texts.append(sum(len(part["input_ids"]) for part in batch))


def private(strategy, folder):
    """DP-SGD: gradients with clipping and noise, for batches many of which are empty; a resume; a rejection."""
    results = {}
    rank = int(os.environ["LOCAL_RANK"]) if strategy != "one" else 0

    def run(name, epochs=1, ckpt=None, adapter_path=None, **options):
        options = {"noise_multiplier": 1.0, "test_seed": 5, "accountant": "rdp"} | options
        seen, kept = Gradients(), KeptMetrics()
        fit = trainer(
            strategy, folder / f"{strategy}_private_{name}", [seen, kept], max_epochs=epochs, num_sanity_val_steps=0
        )
        model = module(privacy=DPSGD(**options), lr_schedule="constant", dropout=0.0, adapter_path=adapter_path)
        fit.fit(model, data(), ckpt_path=ckpt, weights_only=True)
        torch.save(torch.stack(seen.all), folder / f"{strategy}_private_{name}_{rank}.pt")
        results[name] = {
            "steps": fit.global_step,
            "epsilon": kept.all[-1]["privacy/epsilon"],
            "texts": [sum(parts) for parts in zip(*gathered(seen.texts), strict=True)],
        }
        return fit, model

    run("many", batch_size=7)
    run("few", batch_size=1)
    # A new start has a new key: the same on all ranks, or they would draw different batches and diverge.
    run("fresh", batch_size=7, test_seed=None)
    fit, model = run("before", batch_size=20)
    checkpoint = folder / f"{strategy}_private.ckpt"
    fit.save_checkpoint(checkpoint)
    weights = trained(model)
    sums = gathered([float(weight.double().sum()) for weight in weights.values()])
    results["same on all ranks"] = all(each == sums[0] for each in sums)
    adapter = folder / f"{strategy}_private_adapter"
    if rank == 0:
        model.language_model.save_pretrained(adapter)
    gathered(rank)
    try:  # only rank zero checks for a ledger
        run("unaccounted", batch_size=20, adapter_path=str(adapter))
    except ConfigError as error:
        results["unaccounted"] = "has no privacy.jsonl" in str(error)
    if rank == 0:
        export(Ledger(Path(model.private.state()["ledger"])), adapter / "privacy.jsonl")
    gathered(rank)
    run("carried", batch_size=20, adapter_path=str(adapter))
    _, model = run("after", epochs=2, ckpt=str(checkpoint), batch_size=20)
    try:
        run("refused", batch_size=7, ledger=str(folder))
    except OSError as error:
        results["refused"] = error.strerror
    return results


class Foreign(pl.LightningModule):
    """A custom module, which trains a peft model and has no validation."""

    def __init__(self):
        super().__init__()
        self.tokenizer = load_tokenizer("asset:tiny_llama")
        self.net = get_peft_model(
            load_base("asset:tiny_llama"), LoraConfig(r=4, lora_dropout=0.2, target_modules=["v_proj"])
        )

    def training_step(self, batch, batch_idx):
        return self.net(**batch).loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(**batch).loss, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=5e-3)


def foreign(strategy, folder):
    """Metrics of given texts on a custom module and loaders; whether they change its training."""
    corpus = CaseReports().load()
    members, heldout = corpus.train["completion"][:13], corpus.heldout["completion"][:9]

    def collate(texts):
        ids = [torch.tensor(made.tokenizer(text)["input_ids"][:48]) for text in texts]
        padded = torch.nn.utils.rnn.pad_sequence(ids, True, padding_value=-100)
        return {"input_ids": padded.clamp(min=0), "attention_mask": (padded >= 0).long(), "labels": padded}

    def measuring(suite):
        options = ExtractionOptions(n_members=5, n_heldout=4)
        rows = {  # persons with two texts, split over the ranks
            name: [{"text": text, "group": f"{name} {i % (len(texts) // 2)}"} for i, text in enumerate(texts)]
            for name, texts in (("members", members), ("heldout", heldout))
        }
        return Memorization(suite, extraction=options, max_length=48, **rows)

    weights = {}
    for measured in (False, True):
        torch.manual_seed(3)
        made = Foreign()
        loader = DataLoader(members, 3, shuffle=True, collate_fn=collate)
        own = [measuring("quick"), MemorizationCheckpoint(dirpath=str(folder / strategy))] if measured else []
        t = trainer(strategy, folder, own, max_epochs=2)
        t.fit(made, loader)
        weights[measured] = torch.cat([p.detach().flatten() for p in made.parameters() if p.requires_grad])
    saved = torch.load(folder / strategy / "last.ckpt", weights_only=True)
    found = {"same": float(torch.equal(weights[False], weights[True])), "saved": float(saved["epoch"])}
    torch.manual_seed(4)
    with torch.no_grad():
        [p.normal_(std=0.1) for p in made.parameters() if p.requires_grad]
    t = trainer(strategy, folder, [measuring("standard")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t.validate(made, DataLoader(heldout, 2, collate_fn=collate), verbose=False)
    metrics, rows = latest_metrics(t), audit_of(t).audit.result.persons.rows
    found["persons"] = [float(sum(row.rows_scored for row in rows)), float(sum(row.extracted or 0 for row in rows))]
    found["named alike"] = float(len(set(gathered(tuple(row.person for row in rows)))) == 1)
    return found | {n: v for n, v in sorted(metrics.items()) if not n.startswith(("time/", "val_loss"))}


SCENARIOS = {
    "fit": (fit, ["ddp", "sharded"]),
    "validate": (validate, ["ddp", "sharded", "copies"]),
    "few": (few, ["ddp", "sharded"]),
    "probing": (probing, ["ddp", "sharded"]),
    "documents": (documents, ["ddp", "sharded"]),
    "copied": (copied, ["sharded"]),
    "stored": (stored, ["sharded"]),
    "canaries": (canaries, ["ddp", "sharded"]),
    "resume": (resume, ["ddp", "sharded"]),
    "private": (private, ["ddp"]),
    "foreign": (foreign, ["ddp"]),
}


def main(folder):
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    results = {}
    only = sys.argv[2:]
    for name, (scenario, strategies) in SCENARIOS.items():
        for strategy in strategies if not only or name in only else []:
            sys.stdout.write(f"{name} {strategy}\n")  # shows where it hangs
            sys.stdout.flush()
            results[f"{name} {strategy}"] = scenario(strategy, folder)
    (folder / f"results_{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
