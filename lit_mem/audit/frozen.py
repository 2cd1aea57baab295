"""The frozen reference of a model that something else trains."""

from __future__ import annotations

import copy
import logging
from typing import Any, Literal

from torch import nn

from lit_mem.adapters.base import gives_base_back
from lit_mem.audit.subject_models import Audited, Reference, name_of, reference_of
from lit_mem.errors import ConfigError

log = logging.getLogger(__name__)


def reference_in_training(
    model: Any, tokenizer: Any, reference: Reference, started: bool, who: str
) -> nn.Module | Literal["adapter_off"] | None:
    """The frozen model to compare with: a copy of the model as training starts, where no adapter can be turned off.

    Args:
        model: that is trained.
        tokenizer: of it.
        reference: as for `reference_of`.
        started: whether steps were taken before, in the run that this one goes on from.
        who: needs it, for the message.

    Raises:
        ConfigError: training has started, no adapter can be turned off, and the base is not known.
        ModelError: a reference cannot be loaded.
    """
    can_turn_off = bool(getattr(model, "peft_config", None)) and hasattr(model, "disable_adapter")
    name = name_of(model)
    if isinstance(reference, str) and reference == "auto" and not (can_turn_off and gives_base_back(model)):
        if not started:
            log.info("Reference: a frozen copy of the model as training starts, which takes as much memory.")
            return own_forward(copy.deepcopy(model)).requires_grad_(False).eval()
        if not name:
            raise ConfigError(
                f"{who}: training goes on from a checkpoint, and where the model came from is not known; give "
                "reference, its base"
            )
        reference = name
    return reference_of(reference, Audited(model, name), tokenizer)


def own_forward(model: nn.Module) -> nn.Module:
    """A copied model without the `forward` that TRL and accelerate give an instance: it calls the model copied."""
    for module in model.modules():
        if not hasattr(module, "_hf_hook"):  # one that moves tensors between devices is copied with its module
            vars(module).pop("forward", None)
    return model
