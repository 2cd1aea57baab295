"""Context length available to a text: a model's positions minus those used by virtual tokens."""

from __future__ import annotations

from typing import Any, Final

from torch import nn

_LEARNED: Final = {"wpe", "embed_positions", "position_embeddings", "position_embedding"}
"""Names of the learned position table in different model families."""


def positions(model: Any) -> int | None:
    """Number of positions of a model; None if it sets no limit.

    The minimum of its configured limit and the rows of a learned position table, some of which a family may never use
    (OPT the first two, RoBERTa those up to its padding token's).
    """
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    scaling = getattr(config, "rope_parameters", None) or {}
    limits = [limit] if isinstance(limit, int) and limit > 0 and scaling.get("rope_type") != "dynamic" else []
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _LEARNED and "vision" not in name:
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - int(getattr(module, "offset", unused)))
    return min(limits, default=None)


def virtual_tokens(model: Any) -> int:
    """Number of trained vectors that an adapter prepends to every text."""
    configs = getattr(model, "peft_config", None) or {}
    return sum(int(config.num_virtual_tokens) for config in configs.values() if config.is_prompt_learning)


def readable(model: Any) -> int | None:
    """Maximum tokens of a text after the virtual tokens; None if there is no limit."""
    limit = positions(model)
    return None if limit is None else limit - virtual_tokens(model)
