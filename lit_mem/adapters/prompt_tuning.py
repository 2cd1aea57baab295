"""Prompt tuning: trained vectors prepended to every text."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.errors import check_range

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PromptTuning(Adapter):
    """Trains virtual tokens that are prepended to every text; the model's weights do not change.

    Args:
        tokens: number of virtual tokens.

    Source: Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning".
    """

    def __init__(self, tokens: int = 20) -> None:
        check_range("model.adapter.tokens", tokens, at_least=1)
        self.tokens = tokens

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return a `peft.PeftModel` around `base`, with frozen base weights."""
        from peft import PromptTuningConfig, get_peft_model

        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.tokens)
        return cast("nn.Module", get_peft_model(base, config))
