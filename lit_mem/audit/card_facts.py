"""Facts that a model card states beside the metrics, and which names in it are safe to publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Final, Literal

from lit_mem.adapters.origin import hub_id

Form = Literal["adapter", "model", "merged"]
"""The form of an export: a peft adapter, a fully trained model, or an adapter merged into its base."""

_VLLM_RANKS: Final = 512
_VLLM_NOT: Final = (
    *("modules_to_save", "use_dora", "alora_invocation_tokens", "layer_replication", "trainable_token_indices"),
    *("target_parameters", "rank_pattern", "alpha_pattern", "lora_bias", "use_qalora", "use_bdlora"),
)
"""LoRA options that vLLM rejects, or ignores although they change the output."""
_NOT_MERGED: Final = ("ADAPTION_PROMPT", "BEFT", "CARTRIDGE", "CPT", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
_FILE: Final = re.compile(r"\.(jsonl?|csv|tsv|txt|parquet|gguf|arrow)(\.\w+)?$", re.IGNORECASE)
_SHOWN: Final = (
    *("r", "alpha", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "init_lora_weights", "num_virtual_tokens"),
    *("target_modules", "feedforward_modules", "layers_to_transform", "token_indices"),
)
"""Adapter options listed in a card; the others are in `adapter_config.json` beside it."""


@dataclass(frozen=True)
class Facts:
    """Facts that a card states about a model beside its metrics.

    Attributes:
        base: hub id, local folder or `.gguf` file of the base model; the card shows only the last part of a path.
        fingerprint: `models.fingerprint.fingerprint` of the base; {} if not known.
        revision: revision of the base on the Hub.
        form: what is exported.
        adapter: peft's configuration as plain values; None without an adapter.
        data: `Corpus.name`; the card shows only the last part of a path. "" if not known.
        members: number of training texts; None if not known.
        heldout: number of held-out texts; None if not known.
        reference: the reference of membership inference, "adapter off" or "copy"; "" if not known.
        training: training options by name, as plain values; shown unchanged.
        privacy: ε and δ of private training; None if training was not private.
        tokenizer: whether the tokenizer is saved beside the model.
        warnings: findings of the data checks that make the metrics untrustworthy, one line each.
    """

    base: str
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    form: Form = "adapter"
    adapter: Mapping[str, Any] | None = None
    data: str = ""
    members: int | None = None
    heldout: int | None = None
    reference: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    privacy: tuple[float, float] | None = None
    tokenizer: bool = True
    warnings: tuple[str, ...] = ()


def is_local(name: str) -> bool:
    """Whether the name of a model or data set is a local path rather than a hub id."""
    place = name.startswith((".", "/", "~", "asset:")) or "\\" in name or _FILE.search(name) is not None
    return place or Path(name).exists()


def public_name(name: str) -> str:
    """A name without its path: hub ids are unchanged, local paths are reduced to their last part.

    >>> public_name("/home/me/models/llama"), public_name("org/model"), public_name("asset:tiny_llama")
    ('llama', 'org/model', 'tiny_llama')
    """
    if (found := hub_id(name)) != name:
        return found
    if not is_local(name):
        return name
    last = PureWindowsPath(name.removeprefix("asset:")).name  # which takes both kinds of slashes
    return re.sub(r"[^\w.\-]+", "-", last).strip("-") or "local"


def adapter_settings(adapter: Mapping[str, Any]) -> dict[str, str]:
    """Adapter options listed in a card, by name."""
    kind = adapter.get("peft_type")
    found = {"method": str(getattr(kind, "value", kind))}
    for name in _SHOWN:
        value = adapter.get(name)
        if value is None or value is False or value == []:
            continue
        if isinstance(value, set | frozenset | list | tuple):
            names = sorted(map(str, value))
            value = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        found[name] = str(value)
    return found


def vllm_obstacles(adapter: Mapping[str, Any]) -> list[str]:
    """Reasons why vLLM does not load an adapter; [] if it should load.

    Source: `vllm/lora/peft_helper.py` (`PEFTHelper`), `vllm/config/lora.py` (`MaxLoRARanks`).

    Args:
        adapter: peft's configuration as plain values.
    """
    kind = adapter.get("peft_type")
    kind = str(getattr(kind, "value", kind))
    if kind != "LORA":
        return [f"the method is {kind}, and vLLM loads only LoRA"]
    found = [f"{name} is set" for name in _VLLM_NOT if adapter.get(name)]
    if adapter.get("bias", "none") != "none":
        found.append(f"bias is {adapter['bias']}")
    if (rank := int(adapter.get("r", 0))) > _VLLM_RANKS:
        found.append(f"the rank is {rank}, above {_VLLM_RANKS}")
    return found


def can_merge(adapter: Mapping[str, Any]) -> bool:
    """Whether an adapter's method can be merged into its base."""
    kind = adapter.get("peft_type")
    return str(getattr(kind, "value", kind)) not in _NOT_MERGED


def vllm_rank(adapter: Mapping[str, Any]) -> int:
    """The smallest `--max-lora-rank` of vLLM that loads an adapter (vLLM's default is 16)."""
    rank = int(adapter.get("r", 0))
    return next((most for most in (16, 32, 64, 128, 256, 320) if most >= rank), _VLLM_RANKS)
