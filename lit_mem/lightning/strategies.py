"""Where a trainer's strategy puts models, and which strategies cannot work here."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.lora import LoRA
from lit_mem.errors import ConfigError
from lit_mem.lightning.sharded_strategy import ShardedBase
from lit_mem.models.base_loader import Place


def place_of(trainer: pl.Trainer | None) -> Place:
    """Where the models of a run go; without a trainer: whole, on the CPU."""
    if trainer is None:
        return Place()
    strategy = trainer.strategy
    if isinstance(strategy, ShardedBase):
        return Place(strategy.root_device, lambda: strategy.mesh)
    return Place(strategy.root_device)


def refuse_strategies(trainer: pl.Trainer | None, quantization: str, adapter: Adapter) -> None:
    """Reject strategies that cannot work here, before a model is loaded.

    Raises:
        ConfigError: this one cannot, or not with this quantization or adapter.
    """
    strategy = None if trainer is None else trainer.strategy
    stage_3 = isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy) or stage_3:
        raise ConfigError(
            f"trainer.strategy is {type(strategy).__name__}{' stage 3' if stage_3 else ''}, which spreads the "
            "model in a way that callbacks cannot ask it; set trainer.strategy to sharded, which spreads the "
            "frozen base (FSDP2), or to ddp"
        )
    if not isinstance(strategy, ShardedBase):
        return
    if quantization != "none":
        raise ConfigError(
            f"model.quantization is {quantization}, which trainer.strategy sharded cannot spread; expected "
            "none (a base in 4 bits may fit each device: trainer.strategy ddp)"
        )
    if isinstance(adapter, LoRA) and (adapter.dora or adapter.init in ("pissa", "olora")):
        raise ConfigError(
            "model.adapter's dora, and its init pissa or olora, read whole weights of the base, which "
            "trainer.strategy sharded spreads over devices; set trainer.strategy to ddp"
        )
