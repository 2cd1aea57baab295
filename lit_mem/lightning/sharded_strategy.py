"""The strategy for bases too large for one device: frozen weights are sharded, the adapter is on every device."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lit_mem.errors import ConfigError, check_range


class ShardedBase(DDPStrategy):
    """Each device holds a shard of every frozen decoder layer, and gathers a layer only while it runs.

    The frozen base uses torch's `fully_shard` (FSDP2), by decoder layer; embeddings, final norm and output layer are
    on every device. The adapter is trained as with `ddp`: whole on every device, gradients averaged. So checkpoints,
    exported adapters and optimizer state are those of a single device, and either strategy can resume a run of the
    other. Named "sharded" on the command line: `--trainer.strategy sharded`.

    Args:
        ranks_per_copy: number of devices that share one copy of the base; None: all of them. With several machines, use
            the number of devices per machine to keep the gathering of layers off the network between them.
        kwargs: as for Lightning's `DDPStrategy`.
    """

    def __init__(self, ranks_per_copy: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("ShardedBase.ranks_per_copy", ranks_per_copy, at_least=1, or_null=True)
        self.ranks_per_copy = ranks_per_copy
        self._mesh: DeviceMesh | None = None

    @property
    def mesh(self) -> DeviceMesh:
        """The device mesh for `fully_shard`: (shards,), or (copies, shards).

        Raises:
            ConfigError: `ranks_per_copy` does not divide the number of devices.
        """
        if self._mesh is None:
            world, shards = self.world_size, self.ranks_per_copy or self.world_size
            if world % shards:
                raise ConfigError(f"ShardedBase.ranks_per_copy is {shards}; expected a divisor of the {world} devices")
            shape, names = ((world,), ("shard",)) if shards == world else ((world // shards, shards), ("copy", "shard"))
            self._mesh = init_device_mesh(self.root_device.type, shape, mesh_dim_names=names)
        return self._mesh

    def setup(self, trainer: pl.Trainer) -> None:
        """Exclude the shards from DDP, and turn off inference mode, under which layers cannot be gathered."""
        assert self.model is not None
        shards = [name for name, p in self.model.named_parameters() if isinstance(p, DTensor)]
        mark = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        mark(self.model, shards)  # type: ignore[no-untyped-call]
        for loop in (trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        super().setup(trainer)

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Register it as "sharded"."""
        strategy_registry.register("sharded", cls, description=(cls.__doc__ or "").partition("\n")[0])


if "sharded" not in StrategyRegistry:
    ShardedBase.register_strategies(StrategyRegistry)
