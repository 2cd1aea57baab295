"""A pass outside Lightning's validation loop, which the callbacks of this package handle like a validation."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint

from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.foreign_callbacks import from_here
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.runs_audit import RunsAudit


def pass_before_training(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Measure a new run before its first step, like a full sanity check; every process must call it."""
    own = audit_of(trainer).own
    if own is None or trainer.global_step:
        return
    stage = trainer.state.stage
    own.checking, trainer.sanity_checking = True, True
    try:
        callbacks = _validated(trainer, module)
        for callback in callbacks:
            callback.on_validation_end(trainer, module)
        for callback in callbacks:
            callback.on_sanity_check_end(trainer, module)
    finally:
        own.checking, trainer.state.stage = False, stage


def pass_after_epoch(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Measure at the end of a training epoch if there is no validation; every process must call it.

    Callbacks that save checkpoints do so in their own hook, after the others.
    """
    if passes_after_epochs(trainer):
        for callback in _validated(trainer, module):
            if not isinstance(callback, Checkpoint):
                callback.on_validation_end(trainer, module)


def passes_after_epochs(trainer: pl.Trainer) -> bool:
    """Whether training epochs end with a pass of our own, since there are no validations."""
    return audit_of(trainer).own is not None and not trainer.enable_validation


def _validated(trainer: pl.Trainer, module: pl.LightningModule) -> list[Callback]:
    """Run the validation hooks up to the last metric, and return the callbacks involved."""
    callbacks = [one for one in callbacks_of(trainer) if from_here(one) or isinstance(one, RunsAudit)]
    for callback in callbacks:
        callback.on_validation_start(trainer, module)
    for callback in callbacks:
        callback.on_validation_batch_start(trainer, module, None, 0)
    for callback in callbacks:
        callback.on_validation_epoch_end(trainer, module)
    return callbacks
