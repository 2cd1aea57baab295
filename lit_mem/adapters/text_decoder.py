"""The part of a model used for text: the whole model, or the text decoder of a multimodal one."""

from __future__ import annotations

from typing import Any

from torch import nn


def text_decoder(model: Any) -> nn.Module:
    """The part of a model used for text, up to the output layer.

    Args:
        model: a Hugging Face causal language model, without an adapter.

    Returns:
        The model itself, or its text decoder if its configuration has a separate one (Gemma 3, LLaMA 4, …).
    """
    if model.config.get_text_config() is not model.config:
        decoder = model.get_decoder()
        if isinstance(decoder, nn.Module):
            return decoder
    return model  # type: ignore[no-any-return]


def text_parameters(model: Any) -> list[nn.Parameter]:
    """Every parameter used for text, including embeddings and output layer."""
    parts = [text_decoder(model), model.get_input_embeddings(), model.get_output_embeddings()]
    return list(dict.fromkeys(p for part in parts if part is not None for p in part.parameters()))
