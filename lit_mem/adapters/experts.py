"""Mixture-of-experts matrices stacked in one parameter, which peft adapts by the parameter's name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lit_mem.adapters.targets import ALL_LINEAR, SHORT_NAMES, layer_number
from lit_mem.adapters.text_decoder import text_decoder
from lit_mem.errors import ConfigError

FUSED = "gate_up_proj"
"""Gate and up of each expert in one matrix; peft gives it twice the rank, one rank for each."""


@dataclass
class Experts:
    """The adapted parameters of a mixture of experts.

    Attributes:
        parameters: for each name (the last part, or `gate.weight`), the parameters of that name by full name.
        factor: multiple of the adapter's rank for each name.
    """

    parameters: dict[str, dict[str, nn.Parameter]] = field(default_factory=dict)
    factor: dict[str, int] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The value of peft's `target_parameters`."""
        return [whole for parameters in self.parameters.values() for whole in parameters]

    def sizes(self) -> list[tuple[int, int]]:
        """For each parameter, the number of adapter parameters at rank 1, and the maximum rank."""
        found = []
        for name, parameters in self.parameters.items():
            for parameter in parameters.values():
                count = parameter.shape[0] if parameter.ndim == 3 else 1
                rows, columns = parameter.shape[-2:]
                found.append((count * (rows + columns) * self.factor[name], min(rows, columns)))
        return found


def stacked(model: Any) -> dict[str, dict[str, nn.Parameter]]:
    """Parameters of a model's experts and routers that are not linear layers.

    Returns:
        For each name (such as gate_up_proj, down_proj, gate.weight) the parameters by full name. Routers are included
        only with experts: a matrix named `weight` in a module next to the experts.
    """
    inside = set(map(id, text_decoder(model).modules()))
    found: dict[str, dict[str, nn.Parameter]] = {}
    for where, module in model.named_modules():
        if id(module) not in inside or not type(module).__name__.endswith("Experts"):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3:
                found.setdefault(name, {})[f"{where}.{name}"] = parameter
        block = where.rpartition(".")[0]
        router = getattr(model.get_submodule(block), "gate", None)
        if isinstance(router, nn.Module) and not isinstance(router, nn.Linear):
            weight = dict(router.named_parameters(recurse=False)).get("weight")
            if weight is not None and weight.ndim == 2:
                found.setdefault("gate.weight", {})[f"{block}.gate.weight"] = weight
    return found


def has_experts(model: nn.Module) -> bool:
    """Whether a peft model's adapter changes stacked parameters."""
    return any(type(module).__name__ == "ParamWrapper" for module in model.modules())


def by_peft(model: Any) -> set[str]:
    """Names of the stacked parameters that peft's "all-linear" adapts in this model family."""
    try:
        from peft.utils.transformers_weight_conversion import (
            _MODEL_TO_CONVERSION_PATTERN,
            _MOE_TARGET_MODULE_MAPPING,
        )
    except ImportError:  # older versions of peft adapt none
        return set()
    family = _MODEL_TO_CONVERSION_PATTERN.get(getattr(model.config, "model_type", None))
    return set(_MOE_TARGET_MODULE_MAPPING.get(family, {}).values())


def chosen(
    model: Any, given: Sequence[str], linear: Collection[str], layers: Collection[int] | None
) -> tuple[Experts, list[str]]:
    """Select the expert matrices to adapt.

    Args:
        model: without an adapter.
        given: matrix names from the option, or "all-linear".
        linear: names of the model's linear layers.
        layers: indices of the decoder layers; None: all.

    Returns:
        The experts, and the names in `given` that are linear layers (or unknown).

    Raises:
        ConfigError: gate and up are one matrix, and only one of them is named.
    """
    there = stacked(model)
    if list(given) == [ALL_LINEAR]:
        names: set[str] = by_peft(model) & there.keys()
        others: list[str] = []
    else:
        names, others = _named(given, there, linear)
    experts = Experts()
    for name in sorted(names):
        of_layers = {w: p for w, p in there[name].items() if layers is None or layer_number(w) in layers}
        if of_layers:
            experts.parameters[name] = of_layers
            experts.factor[name] = 2 if name == FUSED else 1
    return experts, others


def _named(given: Sequence[str], there: Mapping[str, object], linear: Collection[str]) -> tuple[set[str], list[str]]:
    full = {name: SHORT_NAMES.get(name, name) for name in given}
    names: set[str] = set()
    others: list[str] = []
    halves = {name for name in given if full[name] in ("gate_proj", "up_proj")} if FUSED in there else set()
    halves = {name for name in halves if full[name] not in linear}
    if len({full[name] for name in halves}) == 1:
        raise ConfigError(
            f"model.adapter.targets names {halves.pop()!r}, but gate and up of this model's experts are one matrix; "
            f"expected both, gate and up, or {FUSED}"
        )
    if halves:
        names.add(FUSED)
    for name in given:
        if name in there or full[name] in there:
            names.add(name if name in there else full[name])
            if full[name] in linear:
                others.append(name)
        elif name not in halves:
            others.append(name)
    return names, others
