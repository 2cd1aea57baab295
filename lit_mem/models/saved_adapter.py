"""Load an adapter saved by `peft` onto a base model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import nn

from lit_mem.adapters.options import checked_config, made_without_memory
from lit_mem.adapters.origin import adapter_config, check_origin
from lit_mem.adapters.targets import known_warnings_off
from lit_mem.errors import ModelError
from lit_mem.models.added_tokens import fit_vocabulary
from lit_mem.models.fingerprint import fingerprint
from lit_mem.sharding.parameters import is_sharded, put_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_adapter(base: PreTrainedModel, folder: str, option: str = "model.adapter_path") -> nn.Module:
    """Load an adapter saved by `peft` onto a base model, trainable; `option` is the option with its folder.

    Raises:
        ModelError: the folder has no adapter, one for another architecture, or one exported by lit_mem from a run on
            another base.
    """
    options = adapter_config(folder, option)
    path = Path(folder)
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelError(f"{option} {folder!r} has no adapter_model.safetensors; pickled weights are not loaded")
    try:
        with safe_open(path / "adapter_model.safetensors", "pt") as weights:
            saved = sum("lora_" in name for name in weights.keys())
    except SafetensorError as error:
        raise ModelError(f"{path / 'adapter_model.safetensors'} is damaged or truncated ({error})") from error
    fit_vocabulary(base, folder, option)
    check_origin(folder, base.config._name_or_path, lambda: fingerprint(base), option)
    config = checked_config(options, base, str(path / "adapter_config.json"))
    try:
        model, surplus = _put(base, folder, config)
        taken = sum("lora_" in name for name in model.state_dict())
        if saved > taken:
            raise ValueError(f"it has {saved} LoRA matrices, of which {taken} fit this model")
        if surplus:
            raise ValueError(f"it has {len(surplus)} weights that do not fit this model, such as {surplus[0]}")
        return model
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        if isinstance(error, KeyError):
            line = f"it lacks the weight {error.args[0]}"
        raise ModelError(f"the adapter in {folder!r} does not fit this base model: {line}") from error


def _put(base: PreTrainedModel, folder: str, config: Any) -> tuple[nn.Module, list[str]]:
    """A base with a trainable adapter, and the weights in the folder that do not fit the model."""
    from peft import PeftModel

    if is_sharded(base):
        model, missing = put_adapter(base, folder, "default", config, trainable=True)
        if missing:
            raise ValueError(f"found missing adapter keys, such as {missing[0]}")
        return model, []
    # peft loads virtual tokens frozen; here they are trained like any other adapter.
    virtual = config.is_prompt_learning
    with warnings.catch_warnings(), known_warnings_off():
        # Weights missing from the file would stay at their initialisation.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        # Both layers were saved in full, and are loaded as saved.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True` and a tied layer is part of")
        wrapped: Any = PeftModel.from_pretrained(
            base, folder, config=config, is_trainable=not virtual, low_cpu_mem_usage=made_without_memory(config)
        )
    if virtual:
        # The encoder of p-tuning and of projected prefixes is not saved: the tokens themselves are trained.
        made = config.peft_type == "P_TUNING" or getattr(config, "prefix_projection", False)
        wrapped.peft_config["default"].inference_mode = made
        wrapped.prompt_encoder.requires_grad_(True)
        return wrapped, []
    # The call above does not return peft's result.
    unexpected = wrapped.load_adapter(folder, "default", is_trainable=True).unexpected_keys
    # peft loads full layers and added tokens under its own names, and then reports the saved names as unexpected.
    places = wrapped.state_dict().keys()
    named = {
        key: (key.replace(".modules_to_save.", ".modules_to_save.default."), f"{key}.default") for key in unexpected
    }
    return wrapped, sorted(key for key, names in named.items() if not any(name in places for name in names))
