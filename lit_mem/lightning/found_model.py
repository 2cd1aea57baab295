"""Find the language model and the tokenizer in any LightningModule."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import lightning.pytorch as pl
from torch import nn

from lit_mem.errors import ConfigError
from lit_mem.models.hub import load_tokenizer

_WHO = "Memorization"


def model_in(module: pl.LightningModule, given: nn.Module | str | None) -> nn.Module:
    """The language model that a module trains.

    Args:
        module: has the model among its submodules.
        given: the model, or the name of the module's attribute that holds it; None: the only one in the module.

    Raises:
        ConfigError: it is not found, or there are several.
    """
    name = type(module).__name__
    if isinstance(given, str):
        found = _attribute(module, given)
        if not isinstance(found, nn.Module):
            raise ConfigError(
                f"{_WHO}.model is {given!r}, but {name}.{given} is {_kind(found)}; expected the name of the attribute "
                "that holds a Hugging Face causal language model"
            )
        return _uncompiled(found)
    if given is not None:
        if not isinstance(given, nn.Module):
            raise ConfigError(f"{_WHO}.model is {_kind(given)}; expected a model, or the name of an attribute")
        if all(given is not one for one in module.modules()):
            raise ConfigError(
                f"{_WHO}.model is a {type(given).__name__} that is not among the submodules of {name}, which trains "
                "other weights; expected a submodule"
            )
        return _uncompiled(given)
    models = _outermost(dict(_language_models(module, "")))
    if len(models) != 1:
        there = f"{len(models)} causal language models ({', '.join(models)})" if models else "no causal language model"
        raise ConfigError(
            f"{_WHO}.model is None, but {name} has {there} of transformers or peft among its submodules; set model to "
            "the name of the attribute that holds the one to measure"
        )
    return _uncompiled(next(iter(models.values())))


def tokenizer_in(module: pl.LightningModule, given: Any) -> Any:
    """The tokenizer of a module's model.

    Args:
        module: may have an attribute `tokenizer`.
        given: the tokenizer, the name of the module's attribute that holds it, or its hub id or folder; None: the
            attribute `tokenizer`.

    Raises:
        ConfigError: there is none.
        ModelError: it cannot be loaded.
    """
    if isinstance(given, str):
        found = _attribute(module, given)
        return load_tokenizer(given, None, option=f"{_WHO}.tokenizer") if found is None else found
    found = getattr(module, "tokenizer", None) if given is None else given
    if found is None:
        raise ConfigError(
            f"{_WHO}.tokenizer is None, and {type(module).__name__} has no attribute tokenizer; set tokenizer to that "
            "of the model"
        )
    return found


def _outermost(models: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Drop models inside another, such as a base that an adapter wraps and that the module still holds as well."""
    inner = {id(part) for model in models.values() for part in model.modules() if part is not model}
    return {name: model for name, model in models.items() if id(model) not in inner}


def _uncompiled(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`: batches of many lengths would trigger recompilation, for training too."""
    original = getattr(model, "_orig_mod", model)
    return original if isinstance(original, nn.Module) else model


def _attribute(module: nn.Module, name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"


def _language_models(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Language models by attribute name; a model inside another one, as a base in its wrapper, is not listed."""
    if _is_language_model(module):
        yield name, module
        return
    for child, inner in module.named_children():
        yield from _language_models(inner, f"{name}.{child}" if name else child)


def _is_language_model(module: Any) -> bool:
    if getattr(module, "peft_config", None) and hasattr(module, "get_base_model"):
        module = module.get_base_model()
    config = getattr(module, "config", None)
    can_generate = getattr(module, "can_generate", None)
    return callable(can_generate) and bool(can_generate()) and not getattr(config, "is_encoder_decoder", False)
