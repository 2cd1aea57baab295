"""Resize a base's vocabulary for an adapter that was trained with added tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_mem.errors import ModelError
from lit_mem.guards import preserved_random_state
from lit_mem.sharding.parameters import is_sharded

log = logging.getLogger(__name__)

_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.json")
_OF_BASE: Final = (".weight", ".original_module.weight", ".token_adapter.base_layer.weight", ".base_layer.weight")
"""Suffixes of the names of base weights that `peft` saves with an adapter."""
_PREFIX: Final = "base_model.model."


def has_tokenizer(folder: str | Path) -> bool:
    """Whether an adapter's folder has a tokenizer, which may have more tokens than its base's."""
    return any((Path(folder) / name).is_file() for name in _TOKENIZERS)


def fit_vocabulary(base: Any, folder: str, option: str = "model.adapter_path") -> None:
    """Resize a base's embeddings to the vocabulary that an adapter was trained with, if it differs.

    New rows are the base rows that `peft` saved with the adapter, or else the mean of all other rows, since the base
    has no information about such tokens.

    Args:
        base: the adapter's base, before the adapter is added.
        folder: folder of the adapter.
        option: the option with the folder, for messages.

    Raises:
        ModelError: the base is sharded over ranks, so it cannot be resized.
    """
    wanted, saved = _wanted(base, folder)
    there = base.get_input_embeddings().weight.shape[0]
    if wanted is None or wanted == there:
        return
    if is_sharded(base):
        raise ModelError(
            f"{option} {folder!r} was trained with a vocabulary of {wanted} tokens, but the base has {there} and "
            "cannot "
            "be resized because it is sharded over ranks; expected another trainer.strategy"
        )
    with preserved_random_state(), torch.no_grad():
        base.resize_token_embeddings(wanted, mean_resizing=False)
        for name, layer in _embeddings(base):
            weight = layer.weight
            if name in saved:
                weight.copy_(saved[name].to(weight))
            elif wanted > there:
                weight[there:] = weight[:there].float().mean(dim=0).to(weight)
    log.info(
        "Vocabulary: the adapter was trained with %d tokens, the base has %d; its embeddings are resized.",
        wanted,
        there,
    )


def _wanted(base: Any, folder: str) -> tuple[int | None, dict[str, Tensor]]:
    """Vocabulary size in the adapter's training (None if unknown), and the base rows that were saved."""
    names = [name for name, _ in _embeddings(base)]
    rows, saved = None, dict[str, Tensor]()
    try:
        with safe_open(Path(folder) / "adapter_model.safetensors", "pt") as weights:
            for key in weights.keys():
                inner = key.removeprefix(_PREFIX)
                name = next((one for one in names if inner.startswith(f"{one}.") and inner.endswith("weight")), None)
                if name is None or "lora_" in inner:
                    continue
                rows = weights.get_slice(key).get_shape()[0]
                if inner.removeprefix(name) in _OF_BASE and name not in saved:
                    saved[name] = weights.get_tensor(key)
    except (SafetensorError, OSError):
        return None, {}  # `load_adapter` reports the error
    if rows is None and has_tokenizer(folder):
        from lit_mem.models.hub import load_tokenizer

        size = len(load_tokenizer(folder))
        rows = size if size > base.get_input_embeddings().weight.shape[0] else None
    return rows, saved


def _embeddings(base: Any) -> Iterator[tuple[str, Any]]:
    """The input and output embeddings by name; tied weights appear once."""
    wanted = [base.get_input_embeddings(), base.get_output_embeddings()]
    seen: set[int] = set()
    for name, module in base.named_modules():
        if any(module is one for one in wanted) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            yield name, module
