"""Where the time of an epoch goes."""

from __future__ import annotations

import time

import lightning.pytorch as pl

from lit_mem.callbacks.base import Measure
from lit_mem.types import Batch, TokenScores


class Stopwatch(Measure):
    """Logs the seconds that training and scoring took.

    `time/train` is the training since the last validation, `time/scoring` the validation loop's forward passes;
    generation is `time/generation`, which `Extraction` logs.
    """

    def __init__(self) -> None:
        self._train = 0.0
        self._mark = time.perf_counter()
        self._scoring = 0.0

    def metric_names(self) -> list[str]:
        """Names that this callback logs."""
        return ["time/train", "time/scoring"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training time runs."""
        self._mark = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training time stops, scoring time runs."""
        now = time.perf_counter()
        self._train, self._mark = now - self._mark, now
        super().on_validation_start(trainer, pl_module)

    def begin(self) -> None:
        """Forget the last pass."""
        self._scoring = 0.0

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Scoring runs from the start of the loop to its last batch."""
        self._scoring = time.perf_counter() - self._mark

    def results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Seconds."""
        figures = {"time/scoring": self._scoring}
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            figures["time/train"] = self._train
        return figures

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training time runs again, should the epoch go on."""
        self._mark = time.perf_counter()
