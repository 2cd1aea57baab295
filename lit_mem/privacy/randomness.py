"""Randomness in training, such as dropout, which invalidates DP-SGD's bound.

The bound assumes that a text's gradient depends only on that text. Dropout masks come from the global generators, in
sequence: without one text in a batch, every later text has another mask. And the seed is public (`seed_everything`), so
an adversary can compute both sums, with and without a text. At dropout 0.05 removing one text changes the clipped sum
by 1.4 to 1.8 times the clipping norm, at 0.5 by 5 to 6 times.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lit_mem.errors import ConfigError, ModelError
from lit_mem.guards import preserved_random_state, random_state

_SAMPLES: Final = re.compile(r"drop|jitter")
_NOT_RUN: Final = re.compile(
    r"classifier|summary|(^|_)cls_"
)  # options of heads that a causal language model does not have
_SEEDS: Final = 2
_MORE_SEEDS: Final = 8

WHY: Final = (
    "random masks come from a generator with a public seed, and removing one text changes those of the others, so a "
    "step's sum changes by more than clipping_norm"
)


class Sampler(NamedTuple):
    """A number that makes part of a model random in train mode.

    Attributes:
        name: its location, for a message.
        owner: a module, or a configuration used by modules.
        attribute: attribute of the owner.
        value: its value, above 0.
        adapter: whether it belongs to the adapter instead of the base.
    """

    name: str
    owner: Any
    attribute: str
    value: float
    adapter: bool


def samplers(model: nn.Module) -> list[Sampler]:
    """Dropout modules, and options of modules and configurations by name: dropout, layer drop, jitter of routers.

    Other sources of randomness are only detected by `check_not_random`.
    """
    found = []
    ours = _of_adapters(model)
    configs: dict[int, tuple[str, Any]] = {}
    for name, module in model.named_modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        for attribute, value in vars(module).items():
            if _above_zero(value) and (attribute == "p" if is_dropout else _SAMPLES.search(attribute)):
                where = name if is_dropout else f"{name}.{attribute}"
                found.append(Sampler(where, module, attribute, value, any(name.startswith(place) for place in ours)))
        _collect(getattr(module, "config", None), "config", configs)
    for where, config in configs.values():
        found += [
            Sampler(f"{where}.{attribute}", config, attribute, value, False)
            for attribute, value in vars(config).items()
            if _above_zero(value) and _SAMPLES.search(attribute) and not _NOT_RUN.search(attribute)
        ]
    return found


def _of_adapters(model: nn.Module) -> list[str]:
    """Name prefixes of modules added by adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        f"{name}.{child}."
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
        for child, _ in module.named_children()
        if child != "base_layer"
    ]


def _above_zero(value: Any) -> bool:
    return isinstance(value, float) and value > 0


def _collect(config: Any, name: str, into: dict[int, tuple[str, Any]]) -> None:
    """Collect from a Hugging Face configuration and nested ones."""
    from transformers import PretrainedConfig

    if not isinstance(config, PretrainedConfig) or id(config) in into:
        return
    into[id(config)] = (name, config)
    for key, value in vars(config).items():
        _collect(value, f"{name}.{key}", into)


def reject_dropout_option(module: Any) -> None:
    """Reject dropout of the adapter before a model is loaded.

    Args:
        module: a `CausalLM`, or any other with an `adapter`.

    Raises:
        ConfigError: its adapter has dropout.
    """
    dropout = getattr(getattr(module, "adapter", None), "dropout", 0)
    if dropout and getattr(module, "adapter_path", None) is None:
        raise _rejected("model.adapter.dropout", dropout)


def _rejected(option: str, value: float) -> ConfigError:
    return ConfigError(
        f"{option} is {value:g}, which model.privacy does not support: {WHY}; expected 0 "
        "(--model.adapter.init_args.dropout 0)"
    )


class SamplingOff:
    """Turns off randomness in a model; `restore` turns it on again.

    Values that come with the weights (dropout of a base, or of an adapter in `adapter_path`) are set to 0. Values set
    by an option of this run are rejected.

    Args:
        model: with its adapter.
        adapter_is_loaded: whether the adapter was loaded from a folder.

    Attributes:
        found: what was turned off.

    Raises:
        ConfigError: the adapter of this run has dropout.
    """

    def __init__(self, model: nn.Module, adapter_is_loaded: bool = False) -> None:
        self.found = samplers(model)
        chosen = next((s for s in self.found if s.adapter), None)
        if chosen is not None and not adapter_is_loaded:
            raise _rejected(f"the adapter's dropout ({chosen.name})", chosen.value)
        for sampler in self.found:
            setattr(sampler.owner, sampler.attribute, 0.0)

    def restore(self) -> None:
        """Restore the original values."""
        for sampler in self.found:
            setattr(sampler.owner, sampler.attribute, sampler.value)

    def summary(self) -> str:
        """Short summary of what was turned off: one entry per name, with its first value."""
        kinds: dict[str, list[Sampler]] = {}
        for sampler in self.found:
            kinds.setdefault(re.sub(r"\d+", "*", sampler.name), []).append(sampler)
        return ", ".join(f"{name} {same[0].value:g}" for name, same in kinds.items())


def check_not_random(compute: Callable[[], Sequence[Tensor]], model: nn.Module, tolerance: float) -> None:
    """Reject a model whose gradients depend on random numbers.

    Computes the same texts under two seeds of all global generators: gradients must be bit-identical. If kernels of the
    device are non-deterministic, differences up to `tolerance` are allowed. If random numbers are drawn without effect
    (such as a layer drop of 0), more seeds are tried.

    Args:
        compute: computes losses and gradients in train mode.
        model: the model, for the message.
        tolerance: maximum difference, relative to the norm, if one seed does not give identical results twice.

    Raises:
        ModelError: they differ.
    """
    with preserved_random_state():
        first, drew = _under(0, compute)
        again, _ = _under(0, compute)
        allowed = 0.0 if all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) else tolerance
        for seed in range(1, _MORE_SEEDS if drew else _SEEDS):
            other, _ = _under(seed, compute)
            if not all(_same(a, b, allowed) for a, b in zip(first, other, strict=True)):
                parts = ", ".join(f"{s.name} is {s.value:g}" for s in samplers(model)[:3])
                raise ModelError(
                    "the gradients of the same texts differ under another random seed, so part of the model "
                    f"{f'({parts}) ' if parts else ''}is random in train mode, which model.privacy does not support: "
                    f"{WHY}; expected a model without dropout or noise"
                )


def _under(seed: int, compute: Callable[[], Sequence[Tensor]]) -> tuple[list[Tensor], bool]:
    """The result under this seed of all generators, and whether any of them was used."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    before = random_state()
    found = [tensor.detach().clone() for tensor in compute()]
    return found, not all(_equal(a, b) for a, b in zip(_leaves(before), _leaves(random_state()), strict=True))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def _same(one: Tensor, other: Tensor, allowed: float) -> bool:
    if not allowed:
        return torch.equal(one, other)
    return bool((one.float() - other.float()).norm() <= allowed * one.float().norm())
