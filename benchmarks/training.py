"""Speed of an untracked epoch, against the Hugging Face Trainer and the machine's peak.

All sides in turns. Each trains the same adapter from the same start, one epoch, batches of 8, AdamW, no measures and no
validation; timed from the first batch to the last. Except for the two grouped ones, all use the same batches in the
same order, and their losses are checked to agree step by step.

- ours: the Lightning trainer and `CausalLM`; texts of a batch are packed.
- ours, fused: with `optimizer.init_args.fused: true`.
- ours, grouped: with `data.group_by_length: true`.
- padded, padded grouped: the same two with one row per text.
- Trainer: `transformers.Trainer`, padded batches with an attention mask. It needs the package accelerate.
- products alone: the matrix products of the linear layers of one epoch, forward and back to their inputs (4
  floating-point operations a parameter and real token, as the base is frozen), at the shapes of one step without
  padding, and nothing else.

    python -m benchmarks.training
    python -m benchmarks.training --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 100 --repeats 3
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from benchmarks.setting import (
    agree,
    attach,
    device_of,
    epoch_parser,
    machine,
    make_data,
    make_module,
    make_trainer,
    now,
    quieten,
    seconds,
)
from benchmarks.table import Table, tell
from lit_mem.data import TextDataModule
from lit_mem.lightning.module import CausalLM

BATCH = 8
LEARNING_RATE = 1e-3


@dataclass
class Epoch:
    """One epoch of one side.

    Attributes:
        losses: of each step.
        start: clock time before the first batch.
        seconds: seconds from there until after the last batch.
    """

    losses: list[Tensor] = field(default_factory=list)
    start: float = 0.0
    seconds: float = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self.losses.clear()
        self.start = now()

    def end(self) -> None:
        """Stop the clock."""
        self.seconds = now() - self.start


class Watch(pl.Callback):
    """Fills an `Epoch`."""

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, *args: Any) -> None:
        """Start the clock."""
        self.epoch.begin()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Keep the loss."""
        self.epoch.losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, *args: Any) -> None:
        """Stop the clock."""
        self.epoch.end()


class Workload:
    """Model, texts, and the ways to train on them.

    Args:
        args: what was chosen.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, device_of(args)
        pl.seed_everything(0, verbose=False)
        self.module = self._module(fused=False)
        self.module.configure_model()
        self.start = {n: p.detach().clone() for n, p in self.module.named_parameters() if p.requires_grad}
        self.data = {grouped: self._data(grouped) for grouped in (False, True)}

    def _module(self, fused: bool) -> CausalLM:
        optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=fused)  # noqa: E731
        return make_module(self.args, optimizer=optimizer, lr_schedule="constant")

    def _data(self, grouped: bool) -> TextDataModule:
        made = make_data(self.args, self.args.rows, 2)
        made.group_by_length, made.batch_size = grouped, BATCH
        attach(made, self.module)
        made.setup("fit")
        return made

    def _fresh(self) -> None:
        """Reset the adapter to its initial weights."""
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                if p.requires_grad:
                    p.copy_(self.start[name].to(p.device))
                    p.grad = None
        self.module.train()

    def ours(self, fused: bool = False, grouped: bool = False, padded: bool = False) -> Epoch:
        """An epoch of the Lightning trainer."""
        self._fresh()
        self.module.optimizer = self._module(fused).optimizer
        scorer = copy.copy(self.module._scorer)
        if padded:
            scorer._rows = lambda lengths: [[i] for i in range(len(lengths))]  # type: ignore[union-attr, method-assign]
        kept, self.module._scorer = self.module._scorer, scorer
        epoch = Epoch()
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(
                self.args,
                folder,
                max_epochs=1,
                precision=self.args.precision,
                limit_val_batches=0,
                callbacks=[Watch(epoch)],
            )
            trainer.fit(self.module, self.data[grouped].train_dataloader())
        self.module._scorer = kept
        return epoch

    def theirs(self) -> Epoch:
        """An epoch of the Hugging Face Trainer, on the same batches in the same order as ours."""
        from torch.utils.data import DataLoader
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        self._fresh()
        model, batches, epoch = self.module.language_model, self.batches(), Epoch()
        model.to(self.device)

        class Ticks(TrainerCallback):
            def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
                epoch.begin()

            def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
                epoch.end()

        class Recorded(Trainer):
            def get_train_dataloader(self) -> DataLoader[Any]:
                return self.accelerator.prepare(DataLoader(batches, batch_size=None))  # type: ignore[no-any-return, arg-type]

            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(*args, **kwargs)
                epoch.losses.append(loss.detach())
                return loss

        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=BATCH,
                lr_scheduler_type="constant",
                max_grad_norm=0.0,
                bf16=self.args.precision == "bf16-mixed",
                use_cpu=self.device.type == "cpu",
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            made = Recorded(model, arguments, train_dataset=batches, optimizers=(optimizer, None), callbacks=[Ticks()])
            made.remove_callback(PrinterCallback)
            made.train()
        return epoch

    def batches(self, grouped: bool = False) -> list[dict[str, Tensor]]:
        """The epoch's padded batches, with the attention mask."""
        made = []
        for batch in self.data[grouped].train_dataloader():
            mask = (batch["labels"] != -100).long()
            mask[:, 0] = 1  # given, not trained on
            made.append({"input_ids": batch["input_ids"], "labels": batch["labels"], "attention_mask": mask})
        return made

    # -- the machine's limit -------------------------------------------------------------------------------

    def tokens(self) -> int:
        """Tokens whose hidden state is needed: all except the last of each text."""
        return sum(len(example.input_ids) - 1 for example in self.data[False].train)

    def padding(self, grouped: bool) -> float:
        """Ratio of tokens in padded batches to needed tokens."""
        return sum(batch["input_ids"].numel() for batch in self.batches(grouped)) / self.tokens()

    def packed(self, grouped: bool) -> float:
        """Ratio of tokens in packed rows to needed tokens."""
        scorer: Any = self.module._scorer
        total = 0
        for batch in self.batches(grouped):
            lengths = (batch["attention_mask"].sum(dim=1) - 1).tolist()
            rows = scorer._rows(lengths)
            total += len(rows) * max(sum(lengths[i] for i in row) for row in rows)
        return total / self.tokens()

    def products(self) -> tuple[Epoch, int]:
        """Seconds of the matrix products only, and the number of parameters multiplied per token."""
        model: Any = self.module.language_model
        plain = [m for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        steps = len(self.data[False].train_dataloader())
        size, total = round(self.tokens() / steps), 0.0
        dtype = torch.bfloat16 if self.args.precision == "bf16-mixed" else torch.float32
        for (out, into), count in Counter(tuple(m.weight.shape) for m in plain).items():
            weights = [torch.randn(out, into, device=self.device, dtype=dtype) for _ in range(min(count, 8))]
            x, y = (torch.randn(size, n, device=self.device, dtype=dtype) for n in (into, out))
            results = torch.empty_like(y), torch.empty_like(x)

            def both(weights: Any = weights, x: Any = x, y: Any = y, results: Any = results) -> None:
                for weight in weights:
                    torch.mm(x, weight.T, out=results[0])
                    torch.mm(y, weight, out=results[1])

            both()
            total += min(seconds(both) for _ in range(3)) / len(weights) * count * steps
        return Epoch(seconds=total), sum(m.weight.numel() for m in plain)


def check(one: Epoch, other: Epoch, what: str, tolerance: float) -> None:
    """Check that the losses of both are equal, step by step.

    Raises:
        RuntimeError: they differ.
    """
    agree(len(one.losses), len(other.losses), f"steps of {what}")
    for step, (left, right) in enumerate(zip(one.losses, other.losses, strict=True)):
        agree(left.item(), right.item(), f"loss of step {step} of {what}", tolerance)


def measure(args: argparse.Namespace, load: Workload) -> dict[str, list[float]]:
    """Seconds by side."""
    tolerance = 1e-4 if args.precision == "32-true" and load.device.type == "cpu" else 2e-2
    sides = {
        "ours": load.ours,
        "ours, fused": lambda: load.ours(fused=True),
        "ours, grouped": lambda: load.ours(grouped=True),
        "padded": lambda: load.ours(padded=True),
        "padded, grouped": lambda: load.ours(padded=True, grouped=True),
        "Trainer": load.theirs,
        "products alone": lambda: load.products()[0],
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    load.ours()  # warms up
    for _ in range(args.repeats):
        found = {name: side() for name, side in sides.items()}
        for name in ("ours, fused", "padded", "Trainer"):
            check(found["ours"], found[name], name, tolerance)
        check(found["ours, grouped"], found["padded, grouped"], "padded, grouped", tolerance)
        for name, epoch in found.items():
            times[name].append(epoch.seconds)
    return times


def table(args: argparse.Namespace, load: Workload, times: dict[str, list[float]]) -> Table:
    """All sides."""
    middle = {name: statistics.median(values) for name, values in times.items()}
    computed = {
        "ours": load.packed(False),
        "ours, fused": load.packed(False),
        "ours, grouped": load.packed(True),
        "padded": load.padding(False),
        "padded, grouped": load.padding(True),
        "Trainer": load.padding(False),
        "products alone": 1.0,
    }
    least = middle["products alone"]
    rows: list[list[Any]] = [
        [name, took, took / middle["Trainer"], took / least, load.tokens() / took, computed[name]]
        for name, took in middle.items()
    ]
    made = Table(
        f"{args.model}, one epoch of {args.rows} texts, {load.tokens()} tokens, {args.precision}; "
        f"medians of {args.repeats}; {machine(load.device)}",
        ["", "seconds", "÷ Trainer", "÷ products", "tokens/s", "computed ÷ real"],
        rows,
    )
    work = 4 * load.products()[1] * load.tokens() / 1e9
    made.notes.append(
        f"{work / least:.1f} GFLOP/s in products alone, {work / middle['ours']:.1f} in ours by the same count "
        "(4 operations a parameter and real token)."
    )
    return made


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    return epoch_parser(__doc__)


def run(args: argparse.Namespace) -> list[Table]:
    """The table."""
    if importlib.util.find_spec("accelerate") is None:
        raise SystemExit("the Hugging Face Trainer needs the package accelerate: pip install accelerate")
    quieten()
    load = Workload(args)
    return [table(args, load, measure(args, load))]


def main() -> None:
    """Print the table."""
    args = options().parse_args()
    tell(args, "training", run(args))


if __name__ == "__main__":
    main()
