"""The frozen reference of a trainer's model."""

from __future__ import annotations

from typing import Literal

from torch import nn
from transformers import Trainer

from lit_mem.audit.frozen import reference_in_training
from lit_mem.audit.subject_models import Reference
from lit_mem.hf.calling import tokenizer_of

_KEPT = "_lit_mem_as_training_started"

Frozen = nn.Module | Literal["adapter_off"] | None
"""A frozen model; "adapter_off": the trained one without its adapter; None: no reference."""


def frozen_model(trainer: Trainer, reference: Reference) -> Frozen:
    """The frozen reference: a copy of the model at the start of training if no adapter can be turned off.

    Args:
        trainer: about to train or evaluate.
        reference: "auto", "adapter_off", a model, the hub id or folder of one, or None.

    Raises:
        ConfigError: training resumes from a checkpoint and the base of the model is unknown; or the reference shares
            weights with the model.
        ModelError: it cannot be loaded.
    """
    auto = isinstance(reference, str) and reference == "auto"
    kept = _kept(trainer) if auto else None
    if kept is not None:  # a second `train` continues with the weights of the first
        return kept
    started = trainer.state.global_step > 0
    found = reference_in_training(trainer.model, tokenizer_of(trainer), reference, started, "MemorizationCallback")
    if auto and not started and isinstance(found, nn.Module):
        setattr(trainer, _KEPT, (trainer.model, found))
    return found


def _kept(trainer: Trainer) -> nn.Module | None:
    """The copy that an earlier `train` of this trainer made of this model."""
    model, kept = getattr(trainer, _KEPT, (None, None))
    return kept if model is trainer.model else None
