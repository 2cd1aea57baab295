"""Time spent in each part of an epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl

from lit_mem.audit.measure import Pass, Result
from lit_mem.audit.subject import Subject
from lit_mem.lightning.measure_callback import Measure
from lit_mem.types import Batch, TokenScores


class Stopwatch(Measure):
    """Logs the seconds that training and scoring took.

    `time/train` is the training time since the last validation, over all epochs since then, without what happens
    between them (checkpoints); `time/scoring` is the validation loop's forward passes; `time/generation` is logged by
    `Extraction`.
    """

    def __init__(self) -> None:
        self._train = 0.0
        self._train_began: float | None = None
        self._scoring_began = 0.0
        self._scoring = 0.0

    def names(self) -> list[str]:
        """Both timings."""
        return ["time/train", "time/scoring"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the training time."""
        self._train, self._train_began = 0.0, None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the training timer."""
        self._train_began = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restart the training timer if the epoch continues after a validation."""
        if self._train_began is None:
            self._train_began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the elapsed time, and restart the timer for loading the next batch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        now = time.perf_counter()
        self._train += now - (self._train_began or now)
        self._train_began = now

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the training timer."""
        self._train_began = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the training timer."""
        self._train_began = None
        super().on_validation_start(trainer, pl_module)

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass; start the scoring timer."""
        self._scoring, self._scoring_began = 0.0, time.perf_counter()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Measure from the start of the loop to the current batch."""
        self._scoring = time.perf_counter() - self._scoring_began

    def compute(self, run: Pass) -> Result:
        """The timings in seconds."""
        metrics = {"time/scoring": self._scoring}
        if run.stage == "fit" and not run.checking:
            metrics["time/train"], self._train = self._train, 0.0
        return Result(metrics)
