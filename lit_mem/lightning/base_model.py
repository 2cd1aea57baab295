"""Perplexity and AUROCs of the base model, for comparison with those of a model that was tuned elsewhere."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lit_mem.audit.measure import Pass
from lit_mem.audit.measures.base_metrics import BaseMetrics
from lit_mem.lightning.auditing import measures
from lit_mem.lightning.headline import log_metrics
from lit_mem.lightning.module_subject import ModuleSubject
from lit_mem.lightning.tests_alike import TestsAlike
from lit_mem.types import TokenScores, holds_canaries


class BaseModel(TestsAlike):
    """Perplexity and AUROCs of the reference model, in `validate` and `test`; a fit logs them before its first step.

    It logs what `lit_mem.audit.measures.BaseMetrics` measures.
    """

    def __init__(self) -> None:
        self._base = BaseMetrics()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out what the run's other callbacks measure."""
        alone = stage in ("validate", "test") and not trainer.barebones
        self._base = BaseMetrics(measures(trainer) if alone else ())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset for a new pass."""
        self._base.begin(ModuleSubject(trainer, pl_module))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the batch with the reference's log-probabilities."""
        if isinstance(outputs, TokenScores) and not holds_canaries(batch):
            self._base.observe(outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log metrics of the base model; none if the reference was not scored."""
        run = Pass(ModuleSubject(trainer, pl_module), "test" if trainer.testing else "validate")
        metrics = self._base.compute(run).with_ends().metrics
        if metrics:
            log_metrics(pl_module, metrics)
