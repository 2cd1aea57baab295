"""Support for third-party callbacks in a module that is built late, and rejection of unsupported ones."""

from __future__ import annotations

from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LambdaCallback,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.trainer.call import _call_configure_model

from lit_mem.errors import ConfigError
from lit_mem.lightning.of_trainer import callbacks_of

_READS_NO_WEIGHTS: Final = (Checkpoint, EarlyStopping, pl.callbacks.ProgressBar, pl.callbacks.Timer)


class BuildsModelFirst(Callback):
    """Builds the module before the `setup` of other callbacks, which might read or copy its parameters there.

    Lightning builds it after all of them, so that they would copy, freeze or prune a module without parameters.
    Strategy and precision are in force as at Lightning's own call, which then does nothing.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Build the module."""
        if any(reads_weights_in_setup(callback) for callback in callbacks_of(trainer)):
            _call_configure_model(trainer)


def reads_weights_in_setup(callback: Callback) -> bool:
    """Whether a callback may read the module's parameters in its `setup`: False for ours and some known ones."""
    known = from_here(callback) or isinstance(callback, _READS_NO_WEIGHTS)
    return not known and (isinstance(callback, LambdaCallback) or type(callback).setup is not Callback.setup)


def from_here(thing: Any) -> bool:
    """Whether its class belongs to this package."""
    return type(thing).__module__.partition(".")[0] == "lit_mem"


def prepare_callbacks(trainer: pl.Trainer) -> None:
    """Once per run, before any `setup`: reject unsupported callbacks, and have the model built in time.

    Raises:
        ConfigError: a callback prunes weights, or averages them so that other weights are saved than measured.
    """
    callbacks = callbacks_of(trainer)
    for callback in callbacks:
        if isinstance(callback, ModelPruning):
            raise ConfigError(
                f"trainer.callbacks contains {type(callback).__name__}, which also rewrites weights of the "
                "frozen base, the reference; remove it, and load a pruned base with model.model_id"
            )
        if trainer.state.fn == "fit":
            reject_averaging(callback)
    if not any(isinstance(callback, BuildsModelFirst) for callback in callbacks):
        callbacks.insert(0, BuildsModelFirst())


def reject_averaging(callback: Callback) -> None:
    """Reject Lightning's callbacks that average weights, and their subclasses.

    `WeightAveraging` (and `EMAWeightAveraging`) validates the average and restores the raw weights before anything is
    saved; it also averages the frozen base, which rounds it, and stores all of it in each checkpoint.
    `StochasticWeightAveraging` puts its average into the model after the last validation.

    Raises:
        ConfigError: the callback is one of them.
    """
    name = type(callback).__name__
    if isinstance(callback, StochasticWeightAveraging):
        raise ConfigError(
            f"trainer.callbacks contains {name}, which puts averaged weights into the model after the last validation: "
            "no metric or checkpoint would include them; remove it, and lower the learning rate "
            "towards the end with model.lr_schedule cosine or linear"
        )
    if isinstance(callback, WeightAveraging):
        raise ConfigError(
            f"trainer.callbacks contains {name}, which averages weights only for validation: metrics would be those of "
            "the average, and exported adapters would hold the raw weights; remove it, and lower the learning rate "
            "towards the end with model.lr_schedule cosine or linear"
        )
