"""Where a trainer's strategy places models, and which strategies are not supported."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.lora import LoRA
from lit_mem.errors import ConfigError
from lit_mem.lightning.sharded_strategy import ShardedBase
from lit_mem.models.base_loader import Place


def place_of(trainer: pl.Trainer | None) -> Place:
    """Placement of a run's models; without a trainer: whole, on the CPU."""
    if trainer is None:
        return Place()
    strategy = trainer.strategy
    if isinstance(strategy, ShardedBase):
        return Place(strategy.root_device, lambda: strategy.mesh)
    return Place(strategy.root_device)


def reject_strategies(trainer: pl.Trainer | None, quantization: str, adapter: Adapter) -> None:
    """Reject unsupported strategies before a model is loaded.

    Raises:
        ConfigError: the strategy is not supported, or not with this quantization or adapter.
    """
    strategy = None if trainer is None else trainer.strategy
    stage_3 = isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy) or stage_3:
        raise ConfigError(
            f"trainer.strategy is {type(strategy).__name__}{' stage 3' if stage_3 else ''}, which shards the "
            "model in a way that callbacks cannot use; set trainer.strategy to sharded, which shards the "
            "frozen base (FSDP2), or to ddp"
        )
    if not isinstance(strategy, ShardedBase):
        return
    if quantization != "none":
        raise ConfigError(
            f"model.quantization is {quantization}, which trainer.strategy sharded does not support; expected "
            "none (a 4-bit base may fit each device: trainer.strategy ddp)"
        )
    if isinstance(adapter, LoRA) and (adapter.dora or adapter.init in ("pissa", "olora")):
        raise ConfigError(
            "model.adapter's dora, and its init pissa or olora, read whole weights of the base, which "
            "trainer.strategy sharded shards over devices; set trainer.strategy to ddp"
        )
