"""Virtual tokens of prompt tuning and prefixes of prefix tuning, which precede every prompt."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from lit_mem.errors import ModelError

VIRTUAL: Final = -1
"""Placeholder id of a virtual token."""


_VECTORS: Final = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
_PREFIXES: Final = ("PREFIX_TUNING", "CARTRIDGE")


def has_prefix(model: Any) -> bool:
    """Whether each layer has trained keys and values before every text, which only the peft model itself adds."""
    return _kind(model) in _PREFIXES


def _kind(model: Any) -> str | None:
    """Peft's name of the prompt-learning method; None without one, or if its adapter is off."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "peft_config") else None
    if config is None or not config.is_prompt_learning or model.forward == model.base_model.forward:
        return None  # peft turns it off by replacing its forward with the base's
    return str(getattr(config.peft_type, "value", config.peft_type))


class VirtualTokens:
    """The trained vectors of a model, and the base model that reads them.

    Args:
        model: a `peft.PeftModel` with prompt tuning.

    Raises:
        ModelError: the method does not learn vectors before the text.
    """

    def __init__(self, model: Any) -> None:
        kind = _kind(model)
        if kind not in _VECTORS:
            raise ModelError(f"continuations of a model with {kind} are not supported; remove the measure Extraction")
        self._base: Any = model.get_base_model()
        self._vectors: Tensor = model.get_prompt(batch_size=1)[0]
        self._mark = torch.full((len(self._vectors),), VIRTUAL, dtype=torch.int64)

    @classmethod
    def of(cls, model: nn.Module) -> VirtualTokens | None:
        """Those of a model; None if it has none (a prefix does not count), or its adapter is off."""
        if _kind(model) is None or has_prefix(model):
            return None
        return cls(model)

    def before(self, prompt: Tensor) -> Tensor:
        """(n + T,) int64: a prompt with a placeholder for each virtual token in front."""
        return torch.cat([self._mark, prompt])

    def __call__(self, input_ids: Tensor, **more: Any) -> Any:
        """Output of the base model for tokens and placeholders, (B, T) int64."""
        marks = input_ids == VIRTUAL
        if not bool(marks.any()):
            return self._base(input_ids=input_ids, **more)
        embedded = self._base.get_input_embeddings()(input_ids.clamp(min=0))
        vectors = self._vectors.to(embedded).repeat(len(input_ids), 1)  # each row has all of them, in order
        return self._base(inputs_embeds=embedded.masked_scatter(marks[..., None], vectors), **more)
