"""A measure as an entry of `trainer.callbacks`; the first one runs the Audit of them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.audit.measure import Measure as PlainMeasure
from lit_mem.audit.measure import Result
from lit_mem.audit.table import ScoreTable
from lit_mem.callbacks.auditing import TrainerAudit, audit_of, measures


class Listed(Callback):
    """What makes a plain measure a callback: `class Mine(MyMeasure, Listed)`.

    Attributes:
        result: what it computed in the last pass.
    """

    result: Result = Result()

    @property
    def figures(self) -> Mapping[str, float]:
        """Metrics of the last pass, by name."""
        return self.result.metrics

    @property
    def examples(self) -> ScoreTable | None:
        """Per-example columns of the last pass; None: it has none."""
        return self.result.rows

    def _led(self, trainer: pl.Trainer) -> TrainerAudit | None:
        """The trainer's audit, if this callback is the one that runs it."""
        first: object = measures(trainer)[0]
        return audit_of(trainer) if first is self else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare the measures of the trainer.

        Raises:
            ConfigError: an option of one does not fit, two log the same name, or nothing is logged.
        """
        if audit := self._led(trainer):
            audit.open(trainer, pl_module, stage)
        self.result = Result()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let a run that `max_steps` ends within an epoch end with a validation, as one that `max_time` ends does."""
        if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start a pass."""
        if audit := self._led(trainer):
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
        """Read the scores that `validation_step` returned."""
        if audit := self._led(trainer):
            audit.observe(pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and log."""
        if audit := self._led(trainer):
            audit.log(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log verdicts where there is nothing but this validation."""
        if (audit := self._led(trainer)) and trainer.state.fn == "validate" and audit.log_at_once:
            audit.log_verdicts()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log verdicts on the model that training ends with."""
        if audit := self._led(trainer):
            audit.log_verdicts()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As in validation."""
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in validation."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As in validation."""
        self.on_validation_epoch_end(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log verdicts on the test texts."""
        if (audit := self._led(trainer)) and audit.log_at_once:
            audit.log_verdicts()


class Measure(PlainMeasure, Listed):
    """A measure that is written as a callback; one that is to run without Lightning subclasses `audit.Measure`."""
