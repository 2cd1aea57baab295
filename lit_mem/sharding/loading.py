"""Sharded loading of a base model: no process ever holds all of its decoder layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from lit_mem.adapters.base_config import checked_base_config
from lit_mem.adapters.loaded_weights import lacks
from lit_mem.errors import ModelError
from lit_mem.files.untrusted import read_json


def load_sharded_base(
    place: str,
    revision: str | None,
    dtype: str,
    attention: str | None,
    mesh: DeviceMesh,
    device: torch.device,
) -> Any:
    """Load a frozen causal language model with its decoder layers sharded over a device mesh; in train mode.

    The model is created on the meta device, sharded, and filled from its files: each process reads only its own rows of
    a weight.

    Args:
        place: hub id or local folder; its weights must be safetensors.
        revision: branch, tag or commit on the hub.
        dtype: "float32", "bfloat16", "float16", or "auto" for the precision it was saved in.
        attention: attention kernel; None: the library's choice.
        mesh: as `ShardedBase.mesh`.
        device: device of this process.

    Raises:
        ModelError: a weight is missing from the files under the model's own name, or has another shape.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    config = checked_base_config(AutoModelForCausalLM, place, revision, "none", attention)
    if config is None:
        raise ModelError(f"{place} holds no config.json; expected that of a Hugging Face model")
    more: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    kind = (config.dtype or torch.float32) if dtype == "auto" else getattr(torch, dtype)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=False, **more)
    model.requires_grad_(False)
    model.tie_weights()  # tied weights are stored once
    files = weight_files(place, revision)
    _check_complete(model, files)
    shard(model, mesh)
    _fill(model, files, device)
    model.tie_weights()
    return model.to(device).train()


def decoder_layers(model: Any) -> tuple[nn.Module, list[nn.Module]]:
    """The backbone of a Hugging Face causal LM, and its list of decoder layers.

    Raises:
        ModelError: it has no list of decoder layers.
    """
    backbone = getattr(model, model.base_model_prefix, None)
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == count] if backbone else []
    if backbone is None or len(lists) != 1:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder layers as LLaMA has, so it cannot be sharded; "
            "set trainer.strategy to ddp"
        )
    return backbone, list(lists[0])


def shard(model: Any, mesh: DeviceMesh) -> None:
    """Shard the weights of the decoder layers over a mesh; all other weights stay replicated."""
    backbone, layers = decoder_layers(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    rest = {p for p in backbone.parameters() if not isinstance(p, DTensor)}
    fully_shard(backbone, mesh=mesh, ignored_params=rest)  # so that layers are gathered while others run


def weight_files(place: str, revision: str | None) -> dict[str, Path]:
    """Map each weight to the file that holds it.

    Args:
        place: local folder, or hub id, whose safetensors files are downloaded once per machine.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: there are no safetensors files.
    """
    folder = Path(place)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(place, revision=revision, allow_patterns=["*.safetensors", "*.json"]))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return {name: folder / file for name, file in read_json(index, ModelError)["weight_map"].items()}
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ModelError(f"{place} has no model.safetensors; expected safetensors to load in parts")
    with safe_open(file, "pt") as weights:
        return dict.fromkeys(weights.keys(), file)


def _fill(model: nn.Module, files: Mapping[str, Path], device: torch.device) -> None:
    """Fill the model's weights with this process's part of each."""
    filled: dict[str, Tensor] = {}
    with ExitStack() as stack:
        opened = {file: stack.enter_context(safe_open(file, "pt")) for file in sorted(set(files.values()))}
        for name, parameter in model.named_parameters():  # tied weights appear once, under their first name
            part = opened[files[name]].get_slice(name)
            if list(part.get_shape()) != list(parameter.shape):
                raise ModelError(
                    f"{files[name]} is damaged or belongs to another model: {name} is {tuple(part.get_shape())} there, "
                    f"expected {tuple(parameter.shape)}"
                )
            filled[name] = nn.Parameter(_own_part(part, parameter, device), requires_grad=False)
    model.load_state_dict(filled, strict=False, assign=True)


def _check_complete(model: Any, files: Mapping[str, Path]) -> None:
    """Reject files in which a weight is not stored under the model's own name.

    Raises:
        ModelError: a weight is missing, or the files use other names, which are only translated in unsharded loading.
    """
    names = [name for name, _ in model.named_parameters()]
    missing = [name for name in names if name not in files]
    if not missing:
        return
    what = f"model_id {model.config._name_or_path!r}"
    surplus = sorted(files.keys() - {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if not surplus:
        raise ModelError(lacks(what, missing, len(names)))
    raise ModelError(
        f"{what}: its files do not hold {missing[0]} under this name, but {surplus[0]} and others that the model does "
        "not have, so it cannot be loaded in parts; set trainer.strategy to ddp to load it whole, if it is complete"
    )


def _own_part(part: Any, parameter: nn.Parameter, device: torch.device) -> Tensor:
    """This process's rows of a weight, or the whole weight if it is not sharded."""
    if not isinstance(parameter, DTensor):
        whole: Tensor = part[:].to(device, parameter.dtype)
        return whole
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    rows: Tensor = part[offset[0] : offset[0] + shape[0]].to(device, parameter.dtype)
    return DTensor.from_local(
        rows,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
