"""Check that a model can process the texts of a run: their length and token ids."""

from __future__ import annotations

from typing import Any

from lit_mem.adapters.positions import positions, virtual_tokens
from lit_mem.errors import ConfigError


def check_reads(model: Any, model_id: str, longest: int, highest: int) -> None:
    """Reject texts that a model cannot process.

    Args:
        model: any causal language model, with or without an adapter.
        model_id: name of the model.
        longest: number of tokens of the longest text.
        highest: the highest token id.

    Raises:
        ConfigError: a text, including virtual tokens before it, is longer than the model's context, or was tokenized
            for another vocabulary.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if highest >= known:
        raise ConfigError(
            f"the tokenizer gives token {highest}, but the model {model_id} has {known} tokens: it belongs to another "
            "model; check data.tokenizer, model.model_id and model.reference.model_id"
        )
    limit, virtual = positions(model), virtual_tokens(model)
    if limit is not None and longest + virtual > limit:
        front = f" and model.adapter prepends {virtual} virtual tokens" if virtual else ""
        if limit <= virtual + 1:
            raise ConfigError(f"model.adapter prepends {virtual} virtual tokens, but {model_id} reads {limit}")
        raise ConfigError(
            f"the longest text has {longest} tokens{front}, but the model {model_id} reads {limit}; "
            f"set data.max_length to {limit - virtual} or less"
        )
