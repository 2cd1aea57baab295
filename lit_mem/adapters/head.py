"""Train only the output layer, so the reference must be a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from lit_mem.adapters.base import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HeadOnly(Adapter):
    """Trains only the output layer; if it is tied to the embeddings, it is untied first."""

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return `base` itself, with a trainable output layer."""
        base.requires_grad_(False)
        head: Any = base.get_output_embeddings()
        if head.weight is base.get_input_embeddings().weight:
            head.weight = nn.Parameter(head.weight.detach().clone())
            # Otherwise loading or moving the model would tie the weights again.
            base.config.get_text_config().tie_word_embeddings = False
            base.config.tie_word_embeddings = False
        head.weight.requires_grad_(True)
        return cast("nn.Module", base)
