"""Sharded parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor


def is_sharded(model: nn.Module) -> bool:
    """Whether some of a model's parameters are sharded over devices."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter itself, or, if sharded, the gathered one; every rank must call this then."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter  # type: ignore[no-any-return]


@contextmanager
def whole_shapes(model: nn.Module) -> Iterator[None]:
    """Expose a model's sharded weights in their full shape, without values, for code that creates matching weights."""
    shown: list[tuple[nn.Module, str, Any]] = [
        (m, name, p) for m in model.modules() for name, p in m._parameters.items() if isinstance(p, DTensor)
    ]
    # They take no memory: all elements share one value. Otherwise peft would use the shape of this device's shard.
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
    """Load an adapter saved by peft onto a sharded base, or beside the adapters it already has.

    Replaces `peft.PeftModel.from_pretrained` and `load_adapter`, which cannot read sharded weights.

    Args:
        model: the base, or a peft model on it.
        folder: folder of the adapter's weights.
        name: name of the adapter in the model.
        config: `peft.PeftConfig` of the adapter.
        trainable: whether its weights are trainable.

    Returns:
        The model with the adapter, and the names of adapter weights missing from the folder.
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
