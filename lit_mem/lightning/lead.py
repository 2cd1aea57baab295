"""Which of a trainer's checkpoint callbacks "best" and "last" refer to."""

from __future__ import annotations

import os

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint

from lit_mem.errors import ConfigError
from lit_mem.lightning.of_trainer import callbacks_of

RESERVED = ("best", "safe", "last")
"""Stems of the files that `MemorizationCheckpoint` writes."""


def put_first(keeper: ModelCheckpoint, trainer: pl.Trainer) -> None:
    """Make a callback the trainer's first checkpoint callback, from which Lightning reads "best" and "last".

    Raises:
        ConfigError: another one writes files of the same names into its folder.
    """
    for other in trainer.checkpoint_callbacks:
        if not isinstance(other, ModelCheckpoint) or isinstance(other, type(keeper)):
            continue
        options = {"filename": other.filename, "save_last": other.CHECKPOINT_NAME_LAST if other.save_last else None}
        option, name = next(((option, name) for option, name in options.items() if name in RESERVED), (None, None))
        if option is None:
            continue
        if other.dirpath is None or os.path.abspath(other.dirpath) == os.path.abspath(str(keeper.dirpath)):
            raise ConfigError(
                f"{type(other).__name__}.{option} is {getattr(other, option)!r}, but {type(keeper).__name__} writes "
                f"{name}.ckpt in the same folder; set another {option} or dirpath"
            )
    callbacks = callbacks_of(trainer)
    first = next(i for i, callback in enumerate(callbacks) if isinstance(callback, Checkpoint))
    if not isinstance(callbacks[first], type(keeper)):
        others: list[Callback] = [callback for callback in callbacks if callback is not keeper]
        # A new list, since Lightning iterates over the old one.
        trainer.callbacks = [*others[:first], keeper, *others[first:]]  # type: ignore[attr-defined]
