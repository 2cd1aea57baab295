"""The weight matrices that an adapter can change, by name; in a multimodal model, only those used for text."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import nn

from lit_mem.adapters.text_decoder import text_decoder
from lit_mem.errors import ConfigError

ALL_LINEAR: Final = "all-linear"

SHORT_NAMES = {
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
"""Short names of the weight matrices, mapped to LLaMA's module names."""

_BYPASSED: Final = {
    "out_proj": {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"},  # peft's list; read by fused kernels
    "dt_proj": {"mamba", "falcon_mamba"},
    "correction_coefs": {"gemma3n", "gemma3n_text"},
}
"""Linear layers whose weights a model family reads directly, bypassing any adapter, which would get no gradient."""


def linear_modules(model: Any) -> dict[str, nn.Module]:
    """Linear layers used for text, by full name, except the output layer and those that peft cannot wrap.

    Args:
        model: a Hugging Face causal language model, without an adapter.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    within = set(map(id, text_decoder(model).modules())) if hasattr(model, "config") else None
    odd: dict[type, bool] = {}
    found = {}
    for name, module in model.named_modules():
        if module is head or (within is not None and id(module) not in within):
            continue
        if not isinstance(module, nn.Linear) and type(module).__name__ != "Conv1D":
            continue
        if not odd.setdefault(type(module), _gives_more_than_a_tensor(module)):
            found[name] = module
    return found


def linear_layers(model: Any) -> dict[str, bool]:
    """Names of the linear layers, as returned by `short_name`.

    Returns:
        For each name, whether its weight is stored transposed, as in GPT-2.
    """
    return {short_name(name): type(module).__name__ == "Conv1D" for name, module in linear_modules(model).items()}


def short_name(name: str) -> str:
    """The last part of a module's name; the last two parts if that is a number (altup_projections.0)."""
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


def adaptable(model: Any, linear: Collection[str]) -> list[str]:
    """The expansion of "all-linear": names of the linear layers that peft adapts in this model family."""
    return sorted(name for name in set(linear) if not _bypassed(model, name))


def reject_bypassed(model: Any, names: Iterable[str]) -> None:
    """Reject matrices that an adapter cannot change.

    Raises:
        ConfigError: the model reads a matrix directly, bypassing any adapter.
    """
    for name in names:
        if _bypassed(model, name):
            raise ConfigError(
                f"model.adapter.targets names {name!r}, whose weight a {model.config.model_type} model reads directly, "
                f"bypassing adapters; expected other targets, or {ALL_LINEAR}, which excludes it"
            )


def _bypassed(model: Any, name: str) -> bool:
    return model.config.get_text_config().model_type in _BYPASSED.get(name, ())


def resolved_targets(given: Sequence[str], linear: Collection[str]) -> list[str]:
    """Resolve short names to the model's names of weight matrices.

    Args:
        given: short names or the model's own names.
        linear: the model's own names.

    Raises:
        ConfigError: the model has no such matrix.
    """
    resolved = [SHORT_NAMES.get(name, name) if name not in linear else name for name in given]
    for short, name in zip(given, resolved, strict=True):
        if name not in linear:
            shorts = [short for short, full in SHORT_NAMES.items() if full in linear]
            raise ConfigError(
                f"model.adapter.targets names {short!r}, which this model does not have; "
                f"expected some of {', '.join(sorted(linear))}"
                + (f" (short: {', '.join(shorts)})" if shorts else "")
                + f", or {ALL_LINEAR} alone"
            )
    return resolved


def as_peft_names(model: Any, names: Iterable[str], layers: Collection[int] | None = None) -> list[str]:
    """Names for peft's `target_modules`: short names, or full names if the short ones would match too much.

    Args:
        model: a model without adapters.
        names: names as returned by `short_name`.
        layers: indices of the decoder layers; None: all. Short names are combined with peft's `layers_to_transform`.

    Returns:
        Full names if a module outside the text decoder (the vision tower) has one of these names too.
    """
    wanted, inside = set(names), linear_modules(model)
    if not any(short_name(name) in wanted and name not in inside for name, _ in model.named_modules()):
        return sorted(wanted)
    return [name for name in inside if short_name(name) in wanted and (layers is None or layer_number(name) in layers)]


def layer_number(name: str) -> int | None:
    """Index of the decoder layer that a module belongs to, or None."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def wrapped(base: Any, config: Any) -> nn.Module:
    """Add an adapter to a base.

    Raises:
        ConfigError: peft rejects it for this model.
    """
    from peft import get_peft_model

    try:
        with known_warnings_off():
            return cast("nn.Module", get_peft_model(base, config))
    except ValueError as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(f"model.adapter does not support this model: {line}") from error


@contextmanager
def known_warnings_off() -> Iterator[None]:
    """Suppress peft warnings that do not apply.

    One says that the rank of the experts' matrices matched no module: they are parameters, and it did match. Another
    that the sizes of a layer norm are unknown: LN tuning does not need them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type .*Norm")
        warnings.filterwarnings("ignore", message=".*_pattern keys did not match any targeted module.*gate_up_proj")
        yield


def adapted_matrices(model: nn.Module) -> str:
    """Summary of the matrices that a peft model's adapter changes, such as "4 q_proj, 4 v_proj"; else ""."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    counted = Counter(_matrix(name, module) for name, module in adapted)
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))


def _matrix(name: str, module: Any) -> str:
    parameter = getattr(module, "parameter_name", None)  # of experts, which are not separate modules
    name = re.sub(r"(\.base_layer)+$", "", name)
    return f"{short_name(name)}.{parameter}" if parameter else short_name(name)


def _gives_more_than_a_tensor(module: Any) -> bool:
    """Whether a linear layer is a router that returns a tuple, to which peft would add a tensor."""
    if type(module).forward is nn.Linear.forward or not type(module).__module__.startswith("transformers.models."):
        return False
    with torch.no_grad():
        try:
            weight = module.weight
            return not isinstance(module(weight.new_zeros(1, module.in_features)), torch.Tensor)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            return True
