"""A module's context in its trainer: texts to read, precision, and needs of the callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from lit_mem.functional.ends import end_tokens
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.models.limits import check_reads
from lit_mem.models.reference_model import Setting
from lit_mem.types import Needs


def needs_of(trainer: pl.Trainer | None) -> Needs:
    """Optional scores that the trainer's callbacks read; without a trainer the reference and the moments."""
    if trainer is None:
        return Needs(reference=True, moments=True)
    needs = Needs()
    for callback in callbacks_of(trainer):
        needs |= getattr(callback, "needs", Needs())
    return needs


def setting_of(module: pl.LightningModule, convert: bool) -> Setting:
    """Device and precision of a module's models.

    Args:
        module: with or without its trainer.
        convert: whether a model may be converted to the trainer's precision, which a quantized one may not.
    """
    trainer = module._trainer
    if trainer is None:
        return Setting(module.device)
    if not convert:
        return Setting(module.device, str(trainer.precision))
    return Setting(module.device, str(trainer.precision), trainer.precision_plugin.convert_module)


def check_texts(trainer: pl.Trainer | None) -> Callable[[Any, str], None]:
    """A check that a named model can read the texts of the trainer's data module, if that gives their extent.

    It raises a ConfigError if not; see `models.limits.check_reads`.
    """
    data: Any = None if trainer is None else getattr(trainer, "datamodule", None)

    def check(model: Any, name: str) -> None:
        if hasattr(data, "extent"):
            check_reads(model, name, *data.extent())

    return check


def log_inner_ends(module: pl.LightningModule) -> None:
    """Let the data module log which of its texts lack the end tokens of a module's model."""
    trainer = module._trainer
    data: Any = None if trainer is None else getattr(trainer, "datamodule", None)
    if hasattr(data, "log_inner_ends") and (ends := end_tokens(module)):
        data.log_inner_ends(ends)
