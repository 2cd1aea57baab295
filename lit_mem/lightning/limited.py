"""Callbacks with limits, whatever they do when one is exceeded."""

from __future__ import annotations

import lightning.pytorch as pl

from lit_mem.audit.judging import Rule
from lit_mem.lightning.of_trainer import callbacks_of


class Limited:
    """Mixin for a callback with limits."""

    def rules(self) -> list[Rule]:
        """The limits of this callback."""
        raise NotImplementedError


def rules_in(trainer: pl.Trainer) -> list[Rule]:
    """The limits of the trainer's callbacks, in order."""
    return [rule for callback in callbacks_of(trainer) if isinstance(callback, Limited) for rule in callback.rules()]
