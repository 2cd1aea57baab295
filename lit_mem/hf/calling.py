"""Find the trainer that calls a callback, and reject settings that rule out measuring."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_callback import CallbackHandler

from lit_mem.errors import ConfigError


def calling_trainer() -> Trainer:
    """The trainer among the callers of this function.

    Callback events pass the model, loaders and state, but not the trainer. Only its `log` reaches every logger, and
    only its collator shows what is trained on. Each event is called by one of its methods.

    Raises:
        ConfigError: no trainer is among the callers.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer):
            return found
        frame = frame.f_back
    raise ConfigError("MemorizationCallback: not called by a transformers.Trainer; expected one, such as SFTTrainer")


def read_before(handler: CallbackHandler, mine: TrainerCallback) -> None:
    """Move early-stopping callbacks after the one that adds memorization metrics to an evaluation."""
    place = handler.callbacks.index(mine)
    early = [one for one in handler.callbacks[:place] if isinstance(one, EarlyStoppingCallback)]
    if early:
        handler.callbacks = [one for one in handler.callbacks[: place + 1] if one not in early] + [
            *early,
            *handler.callbacks[place + 1 :],
        ]


def tokenizer_of(trainer: Trainer) -> Any:
    """The trainer's tokenizer: its processing class, or that of its collator.

    Raises:
        ConfigError: there is none.
    """
    found = trainer.processing_class or getattr(trainer.data_collator, "tokenizer", None)
    found = getattr(found, "tokenizer", found)  # of a processor
    if found is None:
        raise ConfigError("MemorizationCallback: the trainer has no processing_class; set it to the tokenizer")
    return found


def check_whole(trainer: Trainer) -> None:
    """Reject a trainer that shards the weights of its model over devices.

    Raises:
        ConfigError: the weights are sharded.
    """
    why = None
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if trainer.is_deepspeed_enabled and getattr(plugin, "zero_stage", 3) == 3:
        why = "DeepSpeed ZeRO-3", "ZeRO stage 1 or 2, DDP"
    elif trainer.is_fsdp_enabled:
        why = "FSDP", "DDP"
    if why is not None:
        raise ConfigError(
            f"MemorizationCallback: {why[0]} shards the weights over devices, but scoring needs whole weights; "
            f"expected {why[1]}, or an audit of the saved model (lit-mem audit)"
        )
