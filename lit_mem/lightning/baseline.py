"""The metrics before the first training step, so that every curve starts at the base model."""

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
"""Namespaces of detailed metrics, which do not summarize a run."""


class Baseline(Callback):
    """Logs the metrics of the validation before training (Lightning's sanity check) at step 0.

    It needs that check to run over all validation batches: `num_sanity_val_steps: -1`, the default of this package's
    command line. With fewer batches the metrics would not be comparable, and none are logged.

    Attributes:
        metrics: metrics before training that are sent to loggers, by name; empty until measured.
        hyper_parameters: hyperparameters of the run, logged with them (as TensorBoard's HParams page requires).
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.hyper_parameters: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reset for a new run."""
        self.metrics = {}

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the metrics before Lightning clears them."""
        if trainer.global_step:
            return  # a resumed run does not start here
        own = audit_of(trainer).own
        if own is not None:
            if own.checking:
                self.metrics = to_loggers(trainer, latest_metrics(trainer))
            return
        if not whole_check(trainer):
            log.warning(
                "No metrics before training: only %s of %s validation batches were run; set "
                "trainer.num_sanity_val_steps to -1 to log them.",
                sum(trainer.num_sanity_val_batches), sum(trainer.num_val_batches),
            )  # fmt: skip
            return
        self.metrics = {name: float(value) for name, value in trainer.logged_metrics.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics at step 0."""
        trained = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        hyper_parameters = self.hyper_parameters | {"trainable_parameters": trained}
        for logger in trainer.loggers:
            rest = dict(self.metrics)
            if isinstance(logger, TensorBoardLogger):
                # The HParams page has one column per metric; those of subgroups would hide the others.
                wide = {name: rest.pop(name) for name in self.metrics if not name.startswith(DETAILS)}
                logger.log_hyperparams(hyper_parameters, wide)  # logs the metrics too
            else:
                logger.log_hyperparams(hyper_parameters)
            if rest:
                logger.log_metrics(rest, step=0)
