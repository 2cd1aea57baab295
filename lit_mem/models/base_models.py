"""Load base models: unsharded, quantized, or sharded over devices."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from lit_mem.adapters.loaded_weights import check_loaded
from lit_mem.adapters.origin import reject_adapter
from lit_mem.errors import ModelError
from lit_mem.models.hub import find, load_model
from lit_mem.models.hub_errors import one_line_errors

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

Quantization = Literal["none", "8bit", "4bit"]


def as_whole(option: str) -> str:
    """What to do instead of setting this option to an adapter."""
    if option.endswith("reference.model_id") or option == "references":
        return "merge it into its base first"
    return "set model.adapter_path to the adapter and model.model_id to its base"


def load_base(
    model_id: str,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: Quantization = "none",
    attention: str | None = None,
    device: torch.device | None = None,
    option: str = "model_id",
) -> PreTrainedModel:
    """Load a causal language model with all weights frozen, in train mode as Lightning expects of a new module.

    Args:
        model_id: hub id, local folder, `.gguf` file, or `asset:<name>` for a bundled model.
        revision: branch, tag or commit on the hub.
        dtype: "float32", "bfloat16", "float16", or "auto" for the precision it was saved in.
        quantization: "4bit" or "8bit" loads onto `device` with bitsandbytes.
        attention: attention kernel ("sdpa", "eager", "flash_attention_2"); None: the library's choice.
        device: device of a quantized model; others stay on the CPU until Lightning moves them.
        option: the option with the model, for messages.

    Raises:
        ModelError: it cannot be found or read, its files lack a weight, or an extra is missing.
    """
    from transformers import AutoModelForCausalLM

    place, of_file = find(model_id, option)
    reject_adapter(option, model_id, place, revision, as_whole(option))
    more: dict[str, Any] = {}
    if quantization != "none":
        more["quantization_config"] = _quantization_config(quantization)
        more["device_map"] = {"": device or torch.device("cuda", torch.cuda.current_device())}
    # Shapes that differ from the configuration are rejected below, by name.
    model, info = load_model(
        AutoModelForCausalLM, model_id, option, revision, quantization, attention,
        dtype=dtype, ignore_mismatched_sizes=True, **more,
    )  # fmt: skip
    check_loaded(model, f"{option} {model_id!r}", info)
    if of_file:
        # The loader still marks the de-quantized model as quantized, but it is a plain model.
        model.config.__dict__.pop("quantization_config", None)
        model.hf_quantizer = None
    model.requires_grad_(False)
    # Hugging Face returns models in eval mode and Lightning keeps them so: gradient checkpointing would be silently
    # disabled, and dropout active in the adapter only.
    return cast("PreTrainedModel", model.train())


def load_base_in_parts(
    model_id: str,
    revision: str | None,
    dtype: str,
    attention: str | None,
    mesh: DeviceMesh,
    device: torch.device,
    option: str = "model_id",
) -> PreTrainedModel:
    """Load a base sharded over a device mesh (see `lit_mem.sharding.loading.load_sharded_base`).

    Raises:
        ModelError: it cannot be found, read, or sharded.
    """
    from lit_mem.sharding.loading import load_sharded_base

    place, of_file = find(model_id, option)
    if of_file:
        raise ModelError(
            f"{option} {model_id!r} is a GGUF file, which cannot be sharded while loading; expected safetensors"
        )
    reject_adapter(option, model_id, place, revision, as_whole(option))
    with one_line_errors("weights", model_id, option, place):
        return cast("PreTrainedModel", load_sharded_base(place, revision, dtype, attention, mesh, device))


def _has_gpu() -> bool:
    # On a CPU bitsandbytes (0.50) may repack weights when they are first evaluated, and then silently gives wrong
    # gradients in training.
    return torch.cuda.is_available()


def _quantization_config(quantization: Quantization) -> Any:
    if not _has_gpu():
        raise ModelError(f"model.quantization is {quantization}, which needs a CUDA GPU; none was found")
    try:
        import bitsandbytes  # noqa: F401  (only to name the extra if it is missing)
    except ImportError as error:
        raise ModelError("model.quantization needs the extra: pip install 'lit_mem[quantization]'") from error
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        # Every matrix product warns that it runs in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
