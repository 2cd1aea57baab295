"""The strategy for bases too large for one device: their frozen weights are spread, the adapter is on every device."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lit_mem.errors import ConfigError, check_range


class ShardedBase(DDPStrategy):
    """Each device holds a part of every frozen decoder layer, and gathers a layer only while it runs.

    The frozen base goes through torch's `fully_shard` (FSDP2), decoder layer by decoder layer; embeddings, last norm
    and output layer are on every device. The adapter is trained as with `ddp`: whole on every device, gradients
    averaged. So checkpoints, exported adapters and optimizer state are those of a single device, and one strategy can
    resume what the other wrote. Named "sharded" on the command line: `--trainer.strategy sharded`.

    Args:
        ranks_per_copy: how many devices share one copy of the base; None: all of them. With several machines the number
            of devices of one keeps the gathering of layers off the network between them.
        kwargs: as for Lightning's `DDPStrategy`.
    """

    def __init__(self, ranks_per_copy: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("ShardedBase.ranks_per_copy", ranks_per_copy, at_least=1, or_null=True)
        self.ranks_per_copy = ranks_per_copy
        self._mesh: DeviceMesh | None = None

    @property
    def mesh(self) -> DeviceMesh:
        """The devices, as `fully_shard` takes them: (shards,), or (copies, shards).

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
        """Leave the shards to themselves, and gather layers without inference mode, which cannot."""
        assert self.model is not None
        shards = [name for name, p in self.model.named_parameters() if isinstance(p, DTensor)]
        mark = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        mark(self.model, shards)  # type: ignore[no-untyped-call]
        for loop in (trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        super().setup(trainer)

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Make it known as "sharded"."""
        strategy_registry.register("sharded", cls, description=(cls.__doc__ or "").partition("\n")[0])


if "sharded" not in StrategyRegistry:
    ShardedBase.register_strategies(StrategyRegistry)
