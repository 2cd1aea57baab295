"""The frozen reference of a model that an external trainer trains."""

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
    """The frozen model to compare with: a copy taken when training starts if no adapter can be turned off.

    Args:
        model: the model being trained.
        tokenizer: its tokenizer.
        reference: as for `reference_of`.
        started: whether the run resumes after earlier training steps.
        who: what needs the reference, for the message.

    Raises:
        ConfigError: training has started, no adapter can be turned off, and the base is unknown.
        ModelError: a reference cannot be loaded.
    """
    can_turn_off = bool(getattr(model, "peft_config", None)) and hasattr(model, "disable_adapter")
    name = name_of(model)
    if isinstance(reference, str) and reference == "auto" and not (can_turn_off and gives_base_back(model)):
        if not started:
            log.info("Reference: a frozen copy of the model at the start of training; this doubles the model's memory.")
            return own_forward(copy.deepcopy(model)).requires_grad_(False).eval()
        if not name:
            raise ConfigError(
                f"{who}: training resumes from a checkpoint, and the base of the model is unknown; set reference to "
                "its base model"
            )
        reference = name
    return reference_of(reference, Audited(model, name), tokenizer)


def own_forward(model: nn.Module) -> nn.Module:
    """A copied model without the instance-level `forward` set by TRL or accelerate, which calls the original model."""
    for module in model.modules():
        if not hasattr(module, "_hf_hook"):  # a hook that moves tensors between devices is copied with its module
            vars(module).pop("forward", None)
    return model
