"""The metrics before the first training step, so that every curve starts where the base model stands."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lit_mem.lightning.auditing import audit_of, latest_metrics, whole_check
from lit_mem.lightning.headline import to_loggers

log = logging.getLogger(__name__)

DETAILS = ("slice/", "correlation/", "time/")
"""How names begin that do not sum up a run."""


class Baseline(Callback):
    """Logs what the validation before training (Lightning's sanity check) measured, at step 0.

    It needs that check to run over all validation batches: `num_sanity_val_steps: -1`, which is the default of
    this project's command line. With fewer the metrics would not be comparable, and none are logged.

    Attributes:
        metrics: those before training that loggers get, by name; empty until they are measured.
        hyper_parameters: of the run, logged beside them (TensorBoard's HParams page wants both together).
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.hyper_parameters: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Drop those of the last run."""
        self.metrics = {}

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was measured; Lightning clears it next."""
        if trainer.global_step:
            return  # a resumed run: this is not where it started
        own = audit_of(trainer).own
        if own is not None:
            if own.checking:
                self.metrics = to_loggers(trainer, latest_metrics(trainer))
            return
        if not whole_check(trainer):
            log.warning(
                "No metrics before training: only %s of %s validation batches were run; set "
                "trainer.num_sanity_val_steps to -1 to have them.",
                sum(trainer.num_sanity_val_batches), sum(trainer.num_val_batches),
            )  # fmt: skip
            return
        self.metrics = {name: float(value) for name, value in trainer.logged_metrics.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log them at step 0."""
        trained = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        hyper_parameters = self.hyper_parameters | {"trainable_parameters": trained}
        for logger in trainer.loggers:
            rest = dict(self.metrics)
            if isinstance(logger, TensorBoardLogger):
                # One column a metric on the HParams page: the many metrics of subgroups would hide the others.
                wide = {name: rest.pop(name) for name in self.metrics if not name.startswith(DETAILS)}
                logger.log_hyperparams(hyper_parameters, wide)  # logs the metrics too
            else:
                logger.log_hyperparams(hyper_parameters)
            if rest:
                logger.log_metrics(rest, step=0)
