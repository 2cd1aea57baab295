"""The models of an audit: the one that is audited, and the frozen reference that it is compared with."""

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
"""A model; "auto" or "adapter_off"; an id or folder; None: none."""

WORDS: Final = ("auto", "adapter_off")
"""References that are no name of a model."""
LONGEST: Final = 4096
"""Tokens of the longest text that is scored whole where no option says how many, and the model reads as many."""
_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Audited:
    """A model that is audited.

    Attributes:
        model: it, with its adapter if it has one.
        base: id or folder of the base that its adapter is on, or of itself; "" where not known.
        adapter: folder of its adapter; None: it has none, or one that is in memory.
        revision: of the base, on the hub.
        fingerprint: of the base that it was loaded on, or of itself; {}: it was not loaded here.
    """

    model: nn.Module
    base: str
    adapter: str | None = None
    revision: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.base} with the adapter {self.adapter}" if self.adapter else self.base or "the model"


def audited_model(
    model: nn.Module | str | os.PathLike[str],
    adapter: str | os.PathLike[str] | None = None,
    dtype: str = "auto",
    device: str | torch.device | None = None,
) -> Audited:
    """The model that is audited; loaded, if it is named.

    Args:
        model: a Hugging Face causal language model with or without an adapter of peft's; or the hub id or folder of
            one, a `.gguf` file, `asset:<name>`, or the folder of an adapter.
        adapter: folder of an adapter that is put on it.
        dtype: precision that it is loaded in: "auto" (that of its files), "float32", "bfloat16" or "float16".
        device: where a loaded model goes; None: a GPU if there is one.

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
    with preserved_random_state():  # an adapter is drawn at random before its weights are read
        made: nn.Module = load_base(name, revision, dtype, option="model")
        prints = fingerprint(made)  # type: ignore[arg-type]
        if adapter is not None:
            made = load_adapter(made, os.fspath(adapter), "adapter")  # type: ignore[arg-type]
    return Audited(made.to(place).eval(), name, None if adapter is None else str(adapter), revision, prints)


def name_of(model: Any) -> str:
    """Hub id or folder that a model came from; "" where not known."""
    return str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")


def readable_length(model: Any) -> int:
    """Tokens of the longest text that a model scores whole: what it reads, at most `LONGEST`."""
    limit = readable(model)
    return LONGEST if limit is None else max(1, min(limit, LONGEST))


def default_device(device: str | torch.device | None) -> torch.device:
    """A device as given; None: the best that there is."""
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError:
            raise ConfigError(f"device is {device!r}; expected such as cpu, cuda:0 or mps") from None
    mps = torch.backends.mps.is_available()
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")


def tokenizer_of(tokenizer: Any, audited: Audited) -> Any:
    """A tokenizer as given; loaded, if it is named, or None.

    Raises:
        ConfigError: None is given, and where to load it from is not known.
        ModelError: it cannot be loaded.
    """
    if tokenizer is not None and not isinstance(tokenizer, str | os.PathLike):
        return tokenizer
    if tokenizer is None and audited.adapter is not None and has_tokenizer(audited.adapter):
        tokenizer = audited.adapter
    name = os.fspath(tokenizer) if tokenizer is not None else audited.base
    if not name:
        raise ConfigError("tokenizer is None, and the model in memory names no folder that has one; give the tokenizer")
    return load_tokenizer(name, None if tokenizer is not None else audited.revision, option="tokenizer")


def reference_of(
    reference: Reference, audited: Audited, tokenizer: Any, dtype: str = "auto"
) -> nn.Module | Literal["adapter_off"] | None:
    """The frozen model to compare with.

    Args:
        reference: a model, or the id or folder of one; "adapter_off": the model without its adapter; "auto": that,
            where it is known to leave exactly the base, else a copy of the adapter's base, and without an adapter
            none; None: none.
        audited: the model.
        tokenizer: of the model.
        dtype: precision that it is loaded in.

    Raises:
        ModelError: it cannot be loaded, or has another vocabulary.
        ConfigError: there is no adapter to turn off, or the reference is a part of the model.
    """
    if reference is None:
        return None
    model = audited.model
    has_adapter = bool(getattr(model, "peft_config", None))
    if isinstance(reference, nn.Module):
        if {id(one) for one in reference.modules()} & {id(one) for one in model.modules()}:
            raise ConfigError(
                "reference shares its weights with the model that is measured; expected a model of its own, or "
                "'adapter_off'"
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
                "out; expected its base as reference (--base)."
            )
            return None
        made = _loaded(audited.base, audited.revision, dtype)
    else:
        made = _loaded(os.fspath(reference), None, dtype)
        _check_tokenizer(os.fspath(reference), tokenizer)
    ours, theirs = (one.get_input_embeddings().weight.shape[0] for one in (model, made))  # type: ignore[operator]
    if theirs < ours:
        raise ModelError(f"reference has {theirs} tokens and the model {ours}; expected its base, of one vocabulary")
    device = next(model.parameters()).device
    if next(made.parameters()).device != device:
        made = made.to(device)
    return made.requires_grad_(False).eval()


def _loaded(name: str, revision: str | None, dtype: str) -> nn.Module:
    if not name:
        raise ConfigError(
            "turning the adapter off does not leave the base here, and where that lies is not known; give reference"
        )
    made: nn.Module = load_base(name, revision, dtype, option="reference")
    return made


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    """Reject a reference that reads other tokens, as far as its folder has a tokenizer."""
    try:
        other = load_tokenizer(name, option="reference")
    except ModelError:
        return
    if other.get_vocab() != tokenizer.get_vocab():
        raise ModelError(f"reference {name!r} has another vocabulary than the model; expected the model's base")
