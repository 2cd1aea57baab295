"""Access to undeclared or private attributes of a trainer."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """The trainer's own list of its callbacks."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def step_of(trainer: pl.Trainer) -> int:
    """The step at which Lightning logs the scalars of this validation."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
