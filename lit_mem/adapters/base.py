"""The contract of an adapter: it makes a base model trainable and, where it can, gives the base back."""

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


# Options of a LoRA configuration with which it does more than add a product of two matrices.
_MORE_THAN_A_SUM: Final = ("use_dora", "alora_invocation_tokens", "modules_to_save", "trainable_token_indices")
_FIRST: Final = re.compile(r"\.lora_A\b")
_SECOND: Final = re.compile(r"\.lora_B\b")


class Adapter(ABC):
    """Turns a frozen base model into one with trainable parameters."""

    @abstractmethod
    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return the model to train; only the parameters that training may change require a gradient.

        Raises:
            ConfigError: an option does not fit the model; the message names what there is to choose from.
        """


def gives_base_back(model: nn.Module) -> bool:
    """Whether turning the adapters off is known to leave exactly the base model.

    False for a model without an adapter (full fine-tuning), for trained biases, and for initialisations that
    rewrite the base's weights. True is still checked at start-up, on real logits.
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
    """Whether the model gives exactly its base's numbers although its adapters are on, as LoRA does before training.

    Known for plain LoRA alone: its second matrix is zero everywhere, so that it adds nothing to any output. False for
    all else, even where it would be true. Parameters must be whole here: a process that holds a shard of them sees
    only its own.
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
    # Zero times infinity is not zero.
    return bool(second) and all(bool(p.isfinite().all()) for p in first) and not any(bool(p.any()) for p in second)


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[nn.Module]:
    """The base model inside `model`, its adapters turned off, and everything as it was afterwards.

    Raises:
        ModelError: `model` has no adapter to turn off.
    """
    disable = getattr(model, "disable_adapter", None)
    if disable is None and getattr(model, "_hf_peft_config_loaded", False):
        disable = partial(_layers_off, model)
    if disable is None:
        raise ModelError("this model has no adapter to turn off; set model.reference.kind to copy")
    # peft makes every adapter weight trainable again when it turns the adapter on, frozen ones too.
    with preserved_requires_grad(model), disable():
        yield model


@contextmanager
def _layers_off(model: nn.Module) -> Iterator[None]:
    """The same for an adapter that transformers itself has put on (`model.add_adapter`)."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    with switched_off(one for one in model.modules() if isinstance(one, BaseTunerLayer | AuxiliaryTrainingWrapper)):
        yield


@contextmanager
def switched_off(modules: Iterable[Any]) -> Iterator[None]:
    """Have some of peft's layers give what their base layers give; those that are off already stay so."""
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
    """The frozen model to compare with, in eval mode and without gradients.

    Args:
        tuned: the model being tuned.
        copy: the frozen model; None: the tuned one with its adapter off.

    Raises:
        ModelError: there is no copy, and no adapter to turn off.
    """
    if copy is not None:
        with evaluation_mode(copy):
            yield copy
        return
    with evaluation_mode(tuned), adapter_off(tuned) as model:
        yield model
