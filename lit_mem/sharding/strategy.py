"""The strategy for bases too large for one device: their frozen weights are spread, the adapter is on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lit_mem.errors import ConfigError


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
        if ranks_per_copy is not None and ranks_per_copy < 1:
            raise ConfigError(f"ShardedBase.ranks_per_copy is {ranks_per_copy}; expected 1 or more")
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


def is_sharded(model: nn.Module) -> bool:
    """Whether some of a model's parameters lie on this device in part only."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter itself, or all of it where this device has a part only; then every rank must ask."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter  # type: ignore[no-any-return]


@contextmanager
def whole_shapes(model: nn.Module) -> Iterator[None]:
    """Show a model's sharded weights in their whole shape, without values, to code that makes others to fit them."""
    shown: list[tuple[nn.Module, str, Any]] = [
        (m, name, p) for m in model.modules() for name, p in m._parameters.items() if isinstance(p, DTensor)
    ]
    # They take no memory: all elements are one. peft would take the shape of this device's part otherwise.
    stand_ins = [
        nn.Parameter(torch.empty((), dtype=p.dtype, device=p.device).expand(p.shape), p.requires_grad)
        for _, _, p in shown
    ]
    for (module, name, _), stand_in in zip(shown, stand_ins, strict=True):
        module._parameters[name] = stand_in
    try:
        yield
    finally:
        for (module, name, p), stand_in in zip(shown, stand_ins, strict=True):
            module._parameters[name] = p.requires_grad_(stand_in.requires_grad)


def put_adapter(model: Any, folder: str, name: str, config: Any, trainable: bool) -> tuple[Any, list[str]]:
    """Put an adapter that peft saved onto a sharded base, or beside the adapters that it has already.

    What `peft.PeftModel.from_pretrained` and `load_adapter` do; they would read weights of which there is but a part.

    Args:
        model: the base, or a peft model on it.
        folder: of the adapter's weights.
        name: of the adapter in the model.
        config: `peft.PeftConfig` of the adapter.
        trainable: whether its weights are.

    Returns:
        The model with it, and the names of its weights that the folder lacks.
    """
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    config.inference_mode = not trainable
    with whole_shapes(model):
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
    result = set_peft_model_state_dict(model, load_file(Path(folder) / "adapter_model.safetensors"), adapter_name=name)
    return model, [key for key in result.missing_keys if f".{name}." in f"{key}."]


if "sharded" not in StrategyRegistry:
    ShardedBase.register_strategies(StrategyRegistry)
