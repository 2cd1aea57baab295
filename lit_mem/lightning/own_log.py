"""Log metrics of a pass that `Memorization` runs itself, beside those that a custom module logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_mem.lightning.headline import log_metrics, to_loggers
from lit_mem.lightning.of_trainer import step_of


def log_own(module: pl.LightningModule, metrics: Mapping[str, float]) -> None:
    """Log metrics of a pass, the same on every rank, in any hook.

    - Before training: nothing, as `Baseline` logs them at step 0.
    - In a validation or test: with the other metrics. If the module logs a loss under our name, its own is kept.
    - At the end of a training epoch: for callbacks, and for loggers at the step of a validation.
    """
    trainer = module.trainer
    if trainer.sanity_checking:
        return
    if trainer.state.fn != "fit" or trainer.validating:
        log_metrics(module, {name: value for name, value in metrics.items() if not _of_module(module, name)})
        return
    module.log_dict(dict(metrics), sync_dist=True, logger=False)
    for logger in trainer.loggers:
        logger.log_metrics(to_loggers(trainer, metrics) | {"epoch": trainer.current_epoch}, step=step_of(trainer))


def _of_module(module: pl.LightningModule, name: str) -> bool:
    """Whether the module logs a metric of this name in this pass, or may do so after the callbacks."""
    if name not in ("val/loss", "test/loss"):
        return False
    results: Any = module.trainer._results or {}
    hook = "on_test_epoch_end" if module.trainer.testing else "on_validation_epoch_end"
    return is_overridden(hook, module) or any(one.meta.name == name for one in results.values())
