"""The adapter interface: make a base model trainable and, if possible, recover the base by disabling the adapter."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from lit_mem.errors import ModelError
from lit_mem.guards import evaluation_mode, preserved_requires_grad

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# LoRA options with which the update is not just a product of two matrices.
_MORE_THAN_A_SUM: Final = ("use_dora", "alora_invocation_tokens", "modules_to_save", "trainable_token_indices")
_FIRST: Final = re.compile(r"\.lora_A\b")
_SECOND: Final = re.compile(r"\.lora_B\b")


class Adapter(ABC):
    """Turns a frozen base model into one with trainable parameters."""

    @abstractmethod
    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return the model to train; only its trainable parameters require a gradient.

        Raises:
            ConfigError: an option does not fit the model; the message lists the valid choices.
        """


def gives_base_back(model: nn.Module) -> bool:
    """Whether disabling the adapters is known to give exactly the base model.

    False for a model without an adapter (full fine-tuning), for trained biases, and for initialisations that rewrite
    the base's weights. If True, this is still verified on logits at start-up.
    """
    configs = getattr(model, "peft_config", None)
    if not configs:
        return False
    for config in configs.values():
        start = getattr(config, "init_lora_weights", True)
        if getattr(config, "bias", "none") != "none" or start not in (True, False, "gaussian", "orthogonal"):
            return False
    return True


def changes_nothing(model: nn.Module) -> bool:
    """Whether the model's outputs equal its base's with adapters enabled, as for LoRA before training.

    Only determined for plain LoRA: its second matrix is zero everywhere, so it adds nothing to any output. False for
    anything else, even if it would be true. Parameters must not be sharded: a process sees only its own shard of them.
    """
    configs = getattr(model, "peft_config", None) or {}
    plain = all(
        getattr(config.peft_type, "value", config.peft_type) == "LORA"
        and not any(getattr(config, option, None) for option in _MORE_THAN_A_SUM)
        for config in configs.values()
    )
    if not plain or not gives_base_back(model):
        return False
    first, second = [], []
    for name, parameter in model.named_parameters():
        if _SECOND.search(name):
            second.append(parameter)
        elif _FIRST.search(name):
            first.append(parameter)
        elif parameter.requires_grad:
            return False
    # The second matrices first: after a training step one of them is read. Zero times infinity is NaN.
    return bool(second) and not any(bool(p.any()) for p in second) and all(bool(p.isfinite().all()) for p in first)


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the base model inside `model` with its adapters disabled; restore everything afterwards.

    Raises:
        ModelError: `model` has no adapter.
    """
    disable = getattr(model, "disable_adapter", None)
    if disable is None and getattr(model, "_hf_peft_config_loaded", False):
        disable = partial(_layers_off, model)
    if disable is None:
        raise ModelError("this model has no adapter to disable; set model.reference.kind to copy")
    # Enabling the adapter, peft makes every adapter weight trainable, including frozen ones.
    with preserved_requires_grad(model), disable():
        yield model


@contextmanager
def _layers_off(model: nn.Module) -> Iterator[None]:
    """Disable adapters that were added by transformers itself (`model.add_adapter`)."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    with switched_off(one for one in model.modules() if isinstance(one, BaseTunerLayer | AuxiliaryTrainingWrapper)):
        yield


@contextmanager
def switched_off(modules: Iterable[Any]) -> Iterator[None]:
    """Disable some peft layers, so that they compute what their base layers compute; disabled ones stay disabled."""
    were_on = [module for module in modules if not module.disable_adapters]
    try:
        for module in were_on:
            module.enable_adapters(False)
        yield
    finally:
        for module in were_on:
            module.enable_adapters(True)


@contextmanager
def frozen_reference(tuned: nn.Module, copy: nn.Module | None) -> Iterator[nn.Module]:
    """Yield the frozen reference model, in eval mode and without gradients.

    Args:
        tuned: the model being tuned.
        copy: the frozen model; None: the tuned one with its adapter disabled.

    Raises:
        ModelError: there is neither a copy nor an adapter to disable.
    """
    if copy is not None:
        with evaluation_mode(copy):
            yield copy
        return
    with evaluation_mode(tuned), adapter_off(tuned) as model:
        yield model
