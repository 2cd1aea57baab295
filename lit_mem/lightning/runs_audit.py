"""Hooks through which a callback runs the Audit of its trainer."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lit_mem.lightning import record
from lit_mem.lightning.auditing import TrainerAudit, audit_of, leader
from lit_mem.lightning.tests_alike import TestsAlike


class RunsAudit(TestsAlike):
    """A callback with measures; the first one of a trainer runs the Audit of all of them."""

    def _led(self, trainer: pl.Trainer) -> TrainerAudit | None:
        """The trainer's audit, if this callback runs it and the pass is not a skipped check."""
        audit = audit_of(trainer)
        return audit if leader(trainer) is self and not audit.leaves_out(trainer) else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare the measures of the trainer.

        Raises:
            ConfigError: an option is invalid, two measures log the same name, or nothing is logged.
        """
        if audit := self._led(trainer):
            audit.open(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """If `max_steps` ends a run within an epoch, end with a validation, as with `max_time`."""
        if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start a pass."""
        if audit := self._led(trainer):
            record.claim(trainer)
            audit.begin(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Observe the scores that `validation_step` returned."""
        if audit := self._led(trainer):
            audit.observe(pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and log."""
        if audit := self._led(trainer):
            audit.log(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append to the run's record; log verdicts if this is not a fit."""
        if audit := self._led(trainer):
            audit.keep(trainer)
            if trainer.state.fn != "fit" and audit.log_at_once:
                audit.log_verdicts()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log verdicts on the final model."""
        if audit := self._led(trainer):
            audit.log_verdicts()
