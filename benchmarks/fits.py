"""Real fits through Lightning, tracked or not, with a clock."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from benchmarks.setting import device_of, make_data, make_module, multiplying, now, quieten
from lit_mem.data import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.reference_scores import Reference
from lit_mem.types import Batch

CONFIG = Path(__file__).parent.parent / "configs" / "smollm2_phee.yaml"


class HeldoutOnly(TextDataModule):
    """Validates only the held-out texts, as a run without tracking would."""

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Held-out texts."""
        return super().val_dataloader()[:1]


class Clock(Callback):
    """Records when epochs and validations start; changes nothing.

    Attributes:
        before: seconds of the validation before training.
        epochs: seconds of each epoch, from its start to the start of the next, including callbacks at its end.
        training: seconds of each epoch before its validation.
        losses: held-out loss after each epoch, the first before training.
        metrics: all metrics logged in the last epoch.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self.epochs: list[float] = []
        self.training: list[float] = []
        self.losses: list[float] = []
        self.metrics: dict[str, float] = {}
        self._mark: float | None = None

    @property
    def after_training(self) -> list[float]:
        """Seconds of each epoch after training: validation, and callbacks at its end."""
        return [epoch - training for epoch, training in zip(self.epochs, self.training, strict=True)]

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The validation before training begins."""
        self._start = now()

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """It has ended."""
        self.before = now() - self._start
        self.losses.append(float(trainer.callback_metrics["val/loss"]))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last epoch is over, and the next begins."""
        self._lap()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training is over."""
        if self._mark is not None:
            self.training.append(now() - self._mark)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the metrics."""
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.losses.append(self.metrics["val/loss"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last epoch is over."""
        self._lap()

    def _lap(self) -> None:
        mark = now()
        if self._mark is not None:
            self.epochs.append(mark - self._mark)
        self._mark = mark


@dataclass
class Fit:
    """The results of one fit.

    Attributes:
        clock: recorded times.
        weights: digest of the trained weights.
        parameters: number that each token is multiplied with.
        scored: tokens that a validation scores.
        trained: tokens of a training epoch.
    """

    clock: Clock
    weights: str
    parameters: int
    scored: int
    trained: int


@dataclass(frozen=True)
class Case:
    """Number of training texts, and of scored members and held-out texts, each."""

    name: str
    train: int
    scored: int

    def __str__(self) -> str:
        return f"{self.name}: {self.train} trained on, {self.scored} + {self.scored} scored"


def memorization() -> Memorization:
    """The section of `configs/smollm2_phee.yaml`."""
    return Memorization(**yaml.safe_load(CONFIG.read_text())["memorization"])


def loggers(**more: Any) -> list[Any]:
    """The trainer's `logger` in `configs/smollm2_phee.yaml`; `more` overrides arguments."""
    made = []
    for entry in yaml.safe_load(CONFIG.read_text())["trainer"]["logger"]:
        module, _, name = entry["class_path"].rpartition(".")
        made.append(getattr(importlib.import_module(module), name)(**entry.get("init_args", {}) | more))
    return made


def fit(
    args: argparse.Namespace,
    case: Case,
    tracked: bool,
    epochs: int,
    reference: Reference | None = None,
    make: Callable[..., CausalLM] = make_module,
    texts: Callable[..., TextDataModule] = make_data,
) -> Fit:
    """One full fit; its files are removed.

    Args:
        args: the options.
        case: number of texts.
        tracked: whether memorization is measured.
        epochs: number of epochs.
        reference: options of the reference; None: without scores from disk.
        make: makes the module, like `make_module`.
        texts: makes the data, like `make_data`.
    """
    quieten()
    clock = Clock()
    pl.seed_everything(0, verbose=False)
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)  # noqa: E731
    reference = reference or Reference(cache=False)
    module = make(args, dropout=0.05, optimizer=optimizer, reference=reference)
    data = texts(args, case.train, case.scored, TextDataModule if tracked else HeldoutOnly)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="gpu" if device_of(args).type == "cuda" else "cpu",
            devices=1,
            precision=getattr(args, "precision", "32-true"),
            min_epochs=epochs,  # so that thresholds do not end a fit early
            max_epochs=epochs,
            num_sanity_val_steps=-1,
            log_every_n_steps=5,
            callbacks=[clock, *([memorization()] if tracked else [])],
            logger=loggers(save_dir=folder) if tracked else False,
            enable_checkpointing=tracked,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # the epoch table
            trainer.fit(module, data)
    digest = hashlib.sha256()
    for p in module.parameters():
        if p.requires_grad:
            digest.update(p.detach().float().cpu().numpy().tobytes())
    scored = sum(int(e.scored.sum()) for e in (*data.heldout, *(data.members if tracked else [])))
    trained = sum(len(e.input_ids) - 1 for e in data.train)
    return Fit(clock, digest.hexdigest(), multiplying(module.language_model), scored, trained)
