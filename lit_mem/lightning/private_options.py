"""Reject options that would silently break the privacy guarantee, each with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from lit_mem.errors import ConfigError
from lit_mem.lightning.sharded_strategy import ShardedBase

_PRECISIONS: Final = ("32-true", "64-true", "bf16-mixed")


def reject_options(trainer: pl.Trainer, data: Any) -> None:
    """Reject options that are incompatible with private training; every process must call it.

    Args:
        trainer: with its options.
        data: the data module, whose `group_by_length` is read if it has one; or None.

    Raises:
        ConfigError: an option is incompatible; the message explains why.
    """
    for option, reason in _found(trainer, data):
        raise ConfigError(f"{option}, which is incompatible with model.privacy: {reason}")


def _found(trainer: Any, data: Any) -> Iterator[tuple[str, str]]:
    """Incompatible options that are set, each with the reason."""
    if str(trainer.precision) not in _PRECISIONS:
        yield (
            f"trainer.precision is {trainer.precision}",
            "gradients must be clipped and noise added in 32 bits, as rounding breaks the bound; expected one of "
            + ", ".join(_PRECISIONS),
        )
    if trainer.accumulate_grad_batches != 1:
        yield (
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}",
            "a step is one draw from all texts; set model.privacy.batch_size to the size of a whole step, which is "
            "processed data.batch_size texts at a time",
        )
    if trainer.gradient_clip_val:
        yield (
            f"trainer.gradient_clip_val is {trainer.gradient_clip_val}",
            "it clips the sum, which does not bound single texts; set model.privacy.clipping_norm",
        )
    if trainer.overfit_batches:
        yield (
            f"trainer.overfit_batches is {trainer.overfit_batches}",
            "a step's texts must be drawn at random from all texts",
        )
    strategy = trainer.strategy
    if isinstance(strategy, ShardedBase) or not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        yield (
            f"trainer.strategy is {type(strategy).__name__}",
            "each device runs as many passes as it has texts, so devices that share one model would wait for one "
            "another forever; expected one device, or ddp",
        )
    if getattr(data, "group_by_length", False):
        yield (
            "data.group_by_length is true",
            "which texts are in a step would depend on other texts' lengths; set it to false: a step's texts are "
            "sorted by length in any case",
        )
    if getattr(data, "chunk", None) is not None:
        yield (
            "data.chunk is set",
            "each window of a long text is drawn separately, so epsilon would hold for one window, not for a text; "
            "remove it, or give the windows as rows with data.source's group_column: epsilon is then logged for a row "
            "and for a person with several",
        )
    if getattr(data, "deduplicate", "none") == "near":
        yield (
            "data.deduplicate is near",
            "one more text could drop several near duplicates, but epsilon is for one row; expected exact or none",
        )
    if getattr(data, "deduplicate", "none") == "exact" and getattr(data, "train_size", None) is not None:
        yield (
            "data.deduplicate is exact and data.train_size is set",
            "one repeated row more or less changes the number of distinct texts, and with it the whole random "
            "subset; deduplicate the data beforehand, or remove data.train_size",
        )
    tries = (BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder)
    for callback in trainer.callbacks:
        if isinstance(callback, tries):
            yield (
                f"trainer.callbacks has {type(callback).__name__}",
                "it tries out steps, or changes their size, outside of the accounting",
            )


def reject_experts(model: nn.Module, batch_size: int | None) -> None:
    """Reject a mixture of experts that processes several texts at a time.

    Routers send the tokens of all texts to an expert as one list. Its length affects rounding, in some models also
    which tokens are dropped, and so, through the next router, which experts a text gets.

    Args:
        model: with its base.
        batch_size: `data.batch_size`; None if not known.

    Raises:
        ConfigError: there are experts, and more than one text at a time.
    """
    if batch_size == 1:
        return
    name = next((name for name, _ in model.named_modules() if name.rpartition(".")[2] == "experts"), None)
    if name is not None:
        raise ConfigError(
            f"data.batch_size is {batch_size}, which is incompatible with model.privacy in a mixture of experts "
            f"({name}): experts read the tokens of all texts as one list, so a text's gradient depends on the others; "
            "expected 1 (model.privacy.batch_size is the size of a step)"
        )


def reject_sampler(trainer: pl.Trainer, poisson: type) -> None:
    """Reject a training loader whose batches are not independent draws; call it once the trainer has its loader.

    Args:
        trainer: trainer of the run.
        poisson: `lit_mem.data.poisson.PoissonBatches`.

    Raises:
        ConfigError: it has another sampler.
    """
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    if not isinstance(sampler, poisson):
        raise ConfigError(
            f"the training loader's sampler is {type(sampler).__name__}, which is incompatible with model.privacy: "
            "epsilon is computed for batches in which each text is drawn independently, not for shuffled texts or "
            "dropped batches; expected lit_mem.data.poisson.PoissonBatches as sampler and batch_size=None"
        )
