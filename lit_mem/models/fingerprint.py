"""Identify a base model by a digest of some of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from lit_mem.sharding.parameters import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fingerprint(
    model: PreTrainedModel, named: Iterable[tuple[str, torch.nn.Parameter]] | None = None
) -> dict[str, str]:
    """A digest that identifies a base model, without reading all of its weights.

    Args:
        model: a model without adapters.
        named: its parameters, by their names without an adapter; None: the model's own names.

    Returns:
        "light": a digest over embeddings and one-dimensional weights, which quantization does not change.
        "full": the same over every weight, "" for a quantized model.
        Uses sixty-four values of each tensor, evenly spaced and rounded to bfloat16, so that the loading precision
        makes no difference.
    """
    light, full = hashlib.sha256(), hashlib.sha256()
    embedding = model.get_input_embeddings().weight
    quantized = getattr(model, "hf_quantizer", None) is not None
    for name, parameter in model.named_parameters() if named is None else named:
        if not parameter.is_floating_point():
            continue
        flat = whole(parameter.detach()).reshape(-1)
        picked = flat[:: max(1, flat.numel() // 64)][:64].to(torch.bfloat16).float().cpu()
        digest = f"{name} {tuple(parameter.shape)} {picked.tolist()}".encode()
        full.update(digest)
        if parameter.ndim == 1 or parameter is embedding:
            light.update(digest)
    return {"light": light.hexdigest()[:16], "full": "" if quantized else full.hexdigest()[:16]}
