"""Loading of base models, tokenizers and adapters, with errors that a user can act on; fingerprints."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lit_mem import assets
from lit_mem.adapters.base_config import check_growth, check_json_files, checked_base_config
from lit_mem.adapters.loaded_weights import check_loaded, without_load_report
from lit_mem.adapters.options import checked_config, made_without_memory
from lit_mem.adapters.origin import adapter_at, adapter_config, check_origin, refuse_adapter
from lit_mem.adapters.positions import positions, virtual_tokens
from lit_mem.adapters.targets import quiet_about_experts
from lit_mem.errors import ConfigError, ModelError
from lit_mem.files.untrusted import panics_raised
from lit_mem.sharding.parameters import is_sharded, put_adapter, whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["none", "8bit", "4bit"]


def as_whole(option: str) -> str:
    """What to do instead of naming an adapter by this option."""
    if option.endswith("reference.model_id") or option == "references":
        return "merge it into its base first"
    return "set model.adapter_path to the adapter and model.model_id to its base"


def _place(model_id: str, option: str = "model_id") -> tuple[str, dict[str, Any]]:
    """Where `from_pretrained` finds a model: (folder or hub id, further arguments)."""
    if model_id.startswith("asset:"):
        return str(assets.path(model_id.removeprefix("asset:"))), {}
    path = Path(model_id)
    if model_id.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"{option} names the file {model_id}, which does not exist")
        return str(path.parent), {"gguf_file": path.name}
    if path.exists() and not path.is_dir():
        raise ModelError(f"{option} is the file {model_id}; expected a folder, a .gguf file or a hub id")
    if not path.exists() and (model_id.startswith((".", "/", "~")) or model_id.count("/") > 1):
        raise ModelError(f"{option} is the folder {model_id}, which does not exist")
    return model_id, {}


def _failure(what: str, model_id: str, error: Exception, option: str = "model_id") -> ModelError:
    """One line for whatever `from_pretrained` raised."""
    text, folder = " ".join(str(error).split()), Path(_place(model_id, option)[0])
    if folder.is_dir() and not model_id.endswith(".gguf") and not (folder / "config.json").is_file():
        hint = "the folder has no config.json; expected that of a Hugging Face model"
        if adapter_at(str(folder)) is not None:
            hint = f"it is an adapter, saved without a {what}; expected a whole model's folder or id"
    elif "custom code" in text or "trust_remote_code" in text:
        hint = "it needs code that comes with it, which is never run; expected a model that transformers knows"
    elif what == "weights" and isinstance(error, OSError) and (pickled := _pickled(folder)) is not None:
        hint = f"{pickled.name} is a pickle, which could run code when read; expected .safetensors files"
    elif isinstance(error, SafetensorError):
        hint = f"{_damaged(folder) or 'a .safetensors file'} is damaged or cut short ({text[:200]})"
    elif "attn_implementation" in text:
        hint = f"model.attention: {text[:300]}"
    elif "gated repo" in text or "401" in text or "403" in text:
        hint = "it is gated: ask for access on its hub page, then log in with `hf auth login`"
    elif "gguf" in text.lower() and isinstance(error, ImportError):
        hint = "GGUF files need the extra: pip install 'lit_mem[gguf]'"
    elif "bitsandbytes" in text.lower():
        hint = "quantization needs the extra: pip install 'lit_mem[quantization]', and a GPU that it supports"
    elif isinstance(error, OSError) and not Path(model_id).exists() and not model_id.startswith("asset:"):
        hint = "it is neither a folder here nor in the local hub cache, and the hub cannot be reached or lacks it"
    else:
        hint = f"{type(error).__name__}: {text[:300]}"
    return ModelError(f"cannot load the {what} of {option} {model_id!r}: {hint}")


def _pickled(folder: Path) -> Path | None:
    """The first pickled weights of a folder that has no others."""
    if any(folder.glob("*.safetensors")):
        return None
    return next((file for end in ("bin", "pt", "pth", "ckpt") for file in sorted(folder.glob(f"*.{end}"))), None)


def _damaged(folder: Path) -> Path | None:
    """The first weights file of a folder that cannot be opened."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return file
    return None


def load_tokenizer(model_id: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Args:
        model_id: hub id, local folder, `.gguf` file, or `asset:<name>` for what ships with the package.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer

    place, more = _place(model_id)
    try:
        check_json_files(place)
        # Not to say so would have the user asked whether code that comes with it may run.
        with panics_raised(f"the tokenizer of model_id {model_id!r}"):
            made = AutoTokenizer.from_pretrained(place, revision=revision or "main", trust_remote_code=False, **more)
        check_growth(made, f"the tokenizer of model_id {model_id!r}")
        return made
    except ModelError:
        raise
    except Exception as error:  # the library raises dozens of kinds; each is one line to the user
        raise _failure("tokenizer", model_id, error) from error


def load_base(
    model_id: str,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: Quantization = "none",
    attention: str | None = None,
    device: torch.device | None = None,
    option: str = "model_id",
) -> PreTrainedModel:
    """A causal language model with all weights frozen, in train mode as Lightning expects of a new module.

    Args:
        model_id: as for `load_tokenizer`.
        revision: branch, tag or commit on the hub.
        dtype: "float32", "bfloat16", "float16", or "auto" for the precision it was saved in.
        quantization: "4bit" or "8bit" loads onto `device` with bitsandbytes.
        attention: attention kernel ("sdpa", "eager", "flash_attention_2"); None: the library's choice.
        device: where a quantized model goes; others stay on the CPU until Lightning moves them.
        option: that names the model, for messages.

    Raises:
        ModelError: it cannot be found or read, its files lack a weight that it needs, or an extra is missing.
    """
    from transformers import AutoModelForCausalLM

    place, more = _place(model_id, option)
    refuse_adapter(option, model_id, place, revision, as_whole(option))
    more |= {"trust_remote_code": False}
    if "gguf_file" not in more:
        more["use_safetensors"] = True
    if attention is not None:
        more["attn_implementation"] = attention
    if quantization != "none":
        more["quantization_config"] = _quantization_config(quantization)
        more["device_map"] = {"": device or torch.device("cuda", torch.cuda.current_device())}
    more |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # other sizes are rejected below, by name
    try:
        if "gguf_file" not in more:
            more["config"] = checked_base_config(AutoModelForCausalLM, place, revision, quantization, attention)
        with without_load_report():
            model, info = AutoModelForCausalLM.from_pretrained(place, revision=revision or "main", dtype=dtype, **more)
    except ModelError:
        raise
    except Exception as error:
        raise _failure("weights", model_id, error, option) from error
    check_loaded(model, f"{option} {model_id!r}", info)
    if "gguf_file" in more:
        # The loader marks what it has de-quantized as still quantized; it is a plain model.
        model.config.__dict__.pop("quantization_config", None)
        model.hf_quantizer = None
    model.requires_grad_(False)
    # Hugging Face returns models in eval mode and Lightning keeps them so: gradient checkpointing would be
    # silently off, and dropout on in the adapter only.
    return model.train()


def load_base_in_parts(
    model_id: str,
    revision: str | None,
    dtype: str,
    attention: str | None,
    mesh: DeviceMesh,
    device: torch.device,
    option: str = "model_id",
) -> PreTrainedModel:
    """The same, its decoder layers spread over a mesh of devices (see `lit_mem.sharding.loading.load_sharded_base`).

    Raises:
        ModelError: it cannot be found, read, or spread.
    """
    from lit_mem.sharding.loading import load_sharded_base

    place, more = _place(model_id, option)
    if more:
        raise ModelError(f"{option} {model_id!r} is a GGUF file, which cannot be read in parts; expected safetensors")
    refuse_adapter(option, model_id, place, revision, as_whole(option))
    try:
        return cast("PreTrainedModel", load_sharded_base(place, revision, dtype, attention, mesh, device))
    except ModelError:
        raise
    except Exception as error:
        raise _failure("weights", model_id, error, option) from error


def _has_gpu() -> bool:
    # On a processor bitsandbytes (0.50) may pack weights anew when they are first evaluated, and then gives wrong
    # gradients in training without a word.
    return torch.cuda.is_available()


def _quantization_config(quantization: Quantization) -> Any:
    if not _has_gpu():
        raise ModelError(f"model.quantization is {quantization}, which needs a CUDA GPU; none was found")
    try:
        import bitsandbytes  # noqa: F401  (only to name the extra when it is absent)
    except ImportError as error:
        raise ModelError("model.quantization needs the extra: pip install 'lit_mem[quantization]'") from error
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        # It would say at every product that it works in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def check_reads(model: PreTrainedModel, model_id: str, longest: int, highest: int) -> None:
    """Refuse texts that a model cannot read.

    Args:
        model: any causal language model, with its adapter or without.
        model_id: what it is called.
        longest: tokens of the longest text.
        highest: the highest token id.

    Raises:
        ConfigError: a text, virtual tokens in front of it included, is longer than the model was made for, or was
            tokenized for another vocabulary.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if highest >= known:
        raise ConfigError(
            f"the tokenizer gives token {highest}, but the model {model_id} knows {known}: it is that of another "
            "model; check data.tokenizer, model.model_id and model.reference.model_id"
        )
    limit, virtual = positions(model), virtual_tokens(model)
    if limit is not None and longest + virtual > limit:
        front = f" and model.adapter puts {virtual} virtual tokens in front" if virtual else ""
        if limit <= virtual + 1:
            raise ConfigError(f"model.adapter puts {virtual} virtual tokens in front, and {model_id} reads {limit}")
        raise ConfigError(
            f"the longest text has {longest} tokens{front}, but the model {model_id} reads {limit}; "
            f"set data.max_length to {limit - virtual} or less"
        )


def load_adapter(base: PreTrainedModel, folder: str) -> nn.Module:
    """Put an adapter that `peft` saved onto a base model, trainable.

    Raises:
        ModelError: the folder holds no adapter, one made for another architecture, or one that this package exported
            from a run on another base.
    """
    options = adapter_config(folder)
    path = Path(folder)
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"model.adapter_path {folder!r} holds no adapter_model.safetensors; pickled weights are refused"
        )
    try:
        with safe_open(path / "adapter_model.safetensors", "pt") as weights:
            saved = sum("lora_" in name for name in weights.keys())
    except SafetensorError as error:
        raise ModelError(f"{path / 'adapter_model.safetensors'} is damaged or cut short ({error})") from error
    check_origin(folder, base.config._name_or_path, lambda: fingerprint(base))
    config = checked_config(options, base, str(path / "adapter_config.json"))
    try:
        model, surplus = _put(base, folder, config)
        taken = sum("lora_" in name for name in model.state_dict())
        if saved > taken:
            raise ValueError(f"it holds {saved} LoRA matrices, of which this model has place for {taken}")
        if surplus:
            raise ValueError(f"it holds {len(surplus)} weights that this model has no place for, such as {surplus[0]}")
        return model
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        if isinstance(error, KeyError):
            line = f"it lacks the weight {error.args[0]}"
        raise ModelError(f"the adapter in {folder!r} does not fit this base model: {line}") from error


def _put(base: PreTrainedModel, folder: str, config: Any) -> tuple[nn.Module, list[str]]:
    """A base with an adapter on it, trainable, and which weights in the folder the model has no place for."""
    from peft import PeftModel

    if is_sharded(base):
        model, missing = put_adapter(base, folder, "default", config, trainable=True)
        if missing:
            raise ValueError(f"found missing adapter keys, such as {missing[0]}")
        return model, []
    # peft loads virtual tokens frozen only; here they are trained like any other adapter.
    virtual = config.is_prompt_learning
    with warnings.catch_warnings(), quiet_about_experts():
        # Weights that the model needs and the file lacks would stay at their untrained start.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        wrapped: Any = PeftModel.from_pretrained(
            base, folder, config=config, is_trainable=not virtual, low_cpu_mem_usage=made_without_memory(config)
        )
    if virtual:
        # What made the tokens of p-tuning and of projected prefixes is not saved: the tokens themselves are trained.
        made = config.peft_type == "P_TUNING" or getattr(config, "prefix_projection", False)
        wrapped.peft_config["default"].inference_mode = made
        wrapped.prompt_encoder.requires_grad_(True)
        return wrapped, []
    # The call above does not return what peft found.
    return wrapped, sorted(wrapped.load_adapter(folder, "default", is_trainable=True).unexpected_keys)


def fingerprint(model: PreTrainedModel) -> dict[str, str]:
    """What tells one base model from another without reading all of its weights.

    Returns:
        "light": a digest over embeddings and one-dimensional weights, which quantization leaves alone.
        "full": the same over every weight, "" for a quantized model.
        Sixty-four values of each tensor, evenly spread and rounded to bfloat16, so that the precision that a
        model is loaded in makes no difference.
    """
    light, full = hashlib.sha256(), hashlib.sha256()
    embedding = model.get_input_embeddings().weight
    quantized = getattr(model, "hf_quantizer", None) is not None
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        flat = whole(parameter.detach()).reshape(-1)
        picked = flat[:: max(1, flat.numel() // 64)][:64].to(torch.bfloat16).float().cpu()
        digest = f"{name} {tuple(parameter.shape)} {picked.tolist()}".encode()
        full.update(digest)
        if parameter.ndim == 1 or parameter is embedding:
            light.update(digest)
    return {"light": light.hexdigest()[:16], "full": "" if quantized else full.hexdigest()[:16]}
