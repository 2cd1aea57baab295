"""Load the models of an audit: the audited one, and the frozen reference."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn

from lit_mem.adapters.base import gives_base_back
from lit_mem.adapters.origin import own_base
from lit_mem.adapters.positions import readable
from lit_mem.errors import ConfigError, ModelError
from lit_mem.guards import preserved_random_state
from lit_mem.models.added_tokens import has_tokenizer
from lit_mem.models.base_models import load_base
from lit_mem.models.fingerprint import fingerprint
from lit_mem.models.hub import load_tokenizer
from lit_mem.models.saved_adapter import load_adapter

log = logging.getLogger(__name__)

Reference = nn.Module | str | os.PathLike[str] | None
"""A model; "auto" or "adapter_off"; an id or folder; or None."""

WORDS: Final = ("auto", "adapter_off")
"""Reserved values of `reference` that are not model names."""
LONGEST: Final = 4096
"""Maximum number of tokens scored per text if no option sets it and the model's context allows it."""
_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Audited:
    """A model that is audited.

    Attributes:
        model: the model, with its adapter if it has one.
        base: id or folder of the base of its adapter, or of the model; "" if not known.
        adapter: folder of its adapter; None without one, or if it is in memory.
        revision: revision of the base on the Hub.
        fingerprint: fingerprint of the base, or of the model; {} if it was not loaded here.
    """

    model: nn.Module
    base: str
    adapter: str | None = None
    revision: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.base} with the adapter {self.adapter}" if self.adapter else self.base or "the model"


def audited_model(
    model: nn.Module | str | os.PathLike[str],
    adapter: str | os.PathLike[str] | None = None,
    dtype: str = "auto",
    device: str | torch.device | None = None,
) -> Audited:
    """The model to audit; loaded if given by name.

    Args:
        model: a Hugging Face causal language model with or without a peft adapter; or the hub id or folder of
            one, a `.gguf` file, `asset:<name>`, or the folder of an adapter.
        adapter: folder of an adapter to load on it.
        dtype: precision in which it is loaded: "auto" (that of its files), "float32", "bfloat16" or "float16".
        device: device of a loaded model; None: a GPU if available.

    Raises:
        ModelError: it cannot be loaded.
        ConfigError: `adapter` is given beside a model in memory.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(_DTYPES)}")
    place = default_device(device)
    if isinstance(model, nn.Module):
        if adapter is not None:
            raise ConfigError("adapter is given beside a model in memory; expected the model with its adapter on it")
        return Audited(model, name_of(model))
    name, revision = os.fspath(model), None
    if adapter is None and (Path(name) / "adapter_config.json").is_file():
        adapter = name
        name, revision = own_base(name)
    with preserved_random_state():  # an adapter is initialized randomly before its weights are loaded
        made: nn.Module = load_base(name, revision, dtype, option="model")
        prints = fingerprint(made)  # type: ignore[arg-type]
        if adapter is not None:
            made = load_adapter(made, os.fspath(adapter), "adapter")  # type: ignore[arg-type]
    return Audited(made.to(place).eval(), name, None if adapter is None else str(adapter), revision, prints)


def name_of(model: Any) -> str:
    """Hub id or folder that a model was loaded from; "" if not known."""
    return str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")


def readable_length(model: Any) -> int:
    """Maximum number of tokens scored per text: the model's context length, at most `LONGEST`."""
    limit = readable(model)
    return LONGEST if limit is None else max(1, min(limit, LONGEST))


def default_device(device: str | torch.device | None) -> torch.device:
    """The given device; None: the best available one."""
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError:
            raise ConfigError(f"device is {device!r}; expected a device such as cpu, cuda:0 or mps") from None
    mps = torch.backends.mps.is_available()
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")


def tokenizer_of(tokenizer: Any, audited: Audited) -> Any:
    """The given tokenizer; loaded if given by name or None.

    Raises:
        ConfigError: None is given, and the folder to load it from is unknown.
        ModelError: it cannot be loaded.
    """
    if tokenizer is not None and not isinstance(tokenizer, str | os.PathLike):
        return tokenizer
    if tokenizer is None and audited.adapter is not None and has_tokenizer(audited.adapter):
        tokenizer = audited.adapter
    name = os.fspath(tokenizer) if tokenizer is not None else audited.base
    if not name:
        raise ConfigError("tokenizer is None, and the model in memory has no source folder; set tokenizer")
    return load_tokenizer(name, None if tokenizer is not None else audited.revision, option="tokenizer")


def reference_of(
    reference: Reference, audited: Audited, tokenizer: Any, dtype: str = "auto"
) -> nn.Module | Literal["adapter_off"] | None:
    """The frozen model to compare with.

    Args:
        reference: a model, or its id or folder; "adapter_off": the model without its adapter; "auto": "adapter_off"
            if that restores the base exactly, else a copy of the adapter's base, and no reference without an adapter;
            None: no reference.
        audited: the audited model.
        tokenizer: its tokenizer.
        dtype: precision in which the reference is loaded.

    Raises:
        ModelError: it cannot be loaded, or has another vocabulary.
        ConfigError: there is no adapter to turn off, or the reference shares weights with the model.
    """
    if reference is None:
        return None
    model = audited.model
    has_adapter = bool(getattr(model, "peft_config", None))
    if isinstance(reference, nn.Module):
        if {id(one) for one in reference.modules()} & {id(one) for one in model.modules()}:
            raise ConfigError(
                "reference shares its weights with the measured model; expected a separate model, or 'adapter_off'"
            )
        made = reference
    elif reference == "adapter_off":
        if not has_adapter:
            raise ConfigError("reference is adapter_off, but the model has no adapter; expected its base, or null")
        return "adapter_off"
    elif reference == "auto":
        if has_adapter and gives_base_back(model):
            return "adapter_off"
        if not has_adapter:
            log.info(
                "No reference: the model has no adapter to turn off, so attacks that compare with its base are left "
                "out; set reference (--base) to the base model to run them."
            )
            return None
        made = _loaded(audited.base, audited.revision, dtype)
    else:
        made = _loaded(os.fspath(reference), None, dtype)
        _check_tokenizer(os.fspath(reference), tokenizer)
    ours, theirs = (one.get_input_embeddings().weight.shape[0] for one in (model, made))  # type: ignore[operator]
    if theirs < ours:
        raise ModelError(f"reference has {theirs} tokens and the model {ours}; expected its base, with its vocabulary")
    device = next(model.parameters()).device
    if next(made.parameters()).device != device:
        made = made.to(device)
    return made.requires_grad_(False).eval()


def _loaded(name: str, revision: str | None, dtype: str) -> nn.Module:
    if not name:
        raise ConfigError(
            "turning the adapter off does not restore the base, and the base's location is unknown; set reference"
        )
    made: nn.Module = load_base(name, revision, dtype, option="reference")
    return made


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    """Reject a reference with another vocabulary, if its folder has a tokenizer."""
    try:
        other = load_tokenizer(name, option="reference")
    except ModelError:
        return
    if other.get_vocab() != tokenizer.get_vocab():
        raise ModelError(f"reference {name!r} has a different vocabulary; expected the model's base")
