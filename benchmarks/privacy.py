"""Time cost of differential privacy: a private epoch against a plain one on the same texts.

All sides in turns, through the Lightning trainer, one epoch each, AdamW, no measures and no validation; timed from the
first batch to the last. Since batches of a private step are random, seconds are divided by the number of texts actually
trained on.

- plain: batches of 8, packed texts.
- plain, a row each: the same with one row per text, as private training requires.
- private: DP-SGD in steps of 8 texts on average, at most 8 per forward pass; including noise and ledger.
- private, steps of 64: the same in steps of 64, as in practice; noise and ledger occur an eighth as often.

Before it is timed, private training is checked to give the plain gradient without clipping and noise.

    python -m benchmarks.privacy
    python -m benchmarks.privacy --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 100 --repeats 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

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
    on_device,
    quieten,
)
from benchmarks.table import Table, tell
from lit_mem.data.encoding import collate
from lit_mem.lightning.module import CausalLM
from lit_mem.privacy import DPSGD
from lit_mem.privacy.training import PrivateTraining
from lit_mem.training.objective import TrainingLoss

BATCH = 8
STEP = 64


@dataclass
class Epoch:
    """One epoch of one side.

    Attributes:
        seconds: from the first batch to the last.
        texts: that were trained on.
        steps: of the optimizer.
    """

    seconds: float
    texts: int
    steps: int


class Count(pl.Callback):
    """Clock and number of texts."""

    def __init__(self) -> None:
        self.texts, self.seconds = 0, 0.0

    def on_train_epoch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._start = now()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the texts, of a private step in several batches."""
        self.texts += sum(len(part["input_ids"]) for part in (batch if isinstance(batch, list) else [batch]))

    def on_train_epoch_end(self, *args: Any) -> None:
        """Stop the clock."""
        self.seconds = now() - self._start


def module_of(args: argparse.Namespace, privacy: DPSGD | None = None) -> CausalLM:
    """The model with its adapter at the same start, built."""
    pl.seed_everything(0, verbose=False)
    made = make_module(args, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3), lr_schedule="constant", privacy=privacy)
    made.configure_model()
    return made


def epoch(args: argparse.Namespace, privacy: DPSGD | None = None, padded: bool = False) -> Epoch:
    """One side."""
    module, count = module_of(args, privacy), Count()
    if padded:
        scorer: Any = module._scorer
        scorer._rows = lambda lengths: [[i] for i in range(len(lengths))]
    data = make_data(args, args.rows, 2)
    data.batch_size = BATCH
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            args, folder, max_epochs=1, precision=args.precision, limit_val_batches=0, callbacks=[count]
        )
        trainer.fit(module, data)
    return Epoch(count.seconds, count.texts, trainer.global_step)


def private(batch_size: int) -> DPSGD:
    """Steps of this many texts on average."""
    return DPSGD(noise_multiplier=1.0, batch_size=batch_size, accountant="rdp", test_seed=0)


def check(args: argparse.Namespace) -> None:
    """Check that both ways give the same gradient of a batch, without clipping and noise.

    Raises:
        RuntimeError: they differ.
    """
    module, device = module_of(args), device_of(args)
    module.to(device)
    data = make_data(args, BATCH + 1, 2)
    attach(data, module)
    data.setup("fit")
    batch = on_device(collate(data.train[:BATCH]), device)

    def losses() -> Tensor:
        assert module._scorer is not None
        return TrainingLoss().by_text(module._scorer, batch)[0]

    wanted = [p for p in module.parameters() if p.requires_grad]
    plain = torch.cat([g.flatten() for g in torch.autograd.grad(losses().mean(), wanted)])
    options = DPSGD(noise_multiplier=0.0, clipping_norm=1e9, batch_size=BATCH, test_seed=0)
    training = PrivateTraining(options, BATCH + 1, options.stream())
    training.budget.plan(1)
    training.attach(module)
    training.accumulate(losses)
    training.finish_step(0)
    ours = torch.cat([p.grad.flatten() for p in wanted if p.grad is not None])
    training.close()
    agree(plain.norm().item(), ours.norm().item(), "the norm of a gradient", 1e-4)
    agree(1.0, torch.cosine_similarity(plain, ours, dim=0).item(), "the direction of a gradient", 1e-4)


def measure(args: argparse.Namespace) -> dict[str, list[Epoch]]:
    """Every side, in turns."""
    sides = {
        "plain": lambda: epoch(args),
        "plain, a row each": lambda: epoch(args, padded=True),
        "private": lambda: epoch(args, private(min(BATCH, args.rows // 2))),
        f"private, steps of {STEP}": lambda: epoch(args, private(min(STEP, args.rows // 2))),
    }
    check(args)
    epoch(args)  # warms up
    found: dict[str, list[Epoch]] = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, side in sides.items():
            found[name].append(side())
    return found


def table(args: argparse.Namespace, found: dict[str, list[Epoch]]) -> Table:
    """Milliseconds a text, and ratios."""
    each = {name: statistics.median(1000 * e.seconds / e.texts for e in epochs) for name, epochs in found.items()}
    rows: list[list[Any]] = [
        [name, took, took / each["plain"], took / each["plain, a row each"], found[name][0].texts, found[name][0].steps]
        for name, took in each.items()
    ]
    module = module_of(args)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    made = Table(
        f"{args.model}, one epoch of {args.rows} texts, {args.precision}; medians of {args.repeats}; "
        f"{machine(device_of(args))}",
        ["", "ms/text", "÷ plain", "÷ a row each", "texts", "steps"],
        rows,
    )
    made.notes.append(
        f"{trained:,} trained parameters: {4 * trained * BATCH / 2**20:.1f} MiB for the gradients of {BATCH} texts."
    )
    return made


def options() -> argparse.ArgumentParser:
    """The command-line options."""
    return epoch_parser(__doc__)


def run(args: argparse.Namespace) -> list[Table]:
    """The table."""
    quieten()
    return [table(args, measure(args))]


def main() -> None:
    """Print the table."""
    args = options().parse_args()
    tell(args, "privacy", run(args))


if __name__ == "__main__":
    main()
