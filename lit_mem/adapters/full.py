"""Full fine-tuning: all weights are trained, so the reference must be a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.text_decoder import text_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FullFineTuning(Adapter):
    """Trains all weights of the base model; for a multimodal model, those of its text decoder.

    The frozen reference is then a second copy in memory.
    """

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return `base` itself, with every parameter used for text trainable."""
        base.requires_grad_(False)
        for parameter in text_parameters(base):
            parameter.requires_grad_(True)
        return cast("nn.Module", base)
