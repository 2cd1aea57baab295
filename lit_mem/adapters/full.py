"""Full fine-tuning: every weight is trained, so the reference must be a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from lit_mem.adapters.base import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FullFineTuning(Adapter):
    """Trains all weights of the base model. The frozen reference is then a second copy in memory."""

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return `base` itself, every parameter trainable."""
        base.requires_grad_(True)
        return cast("nn.Module", base)
