"""Any peft method, by its name and configuration options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.options import DROPPED, REFUSED, checked_config
from lit_mem.adapters.targets import (
    ALL_LINEAR,
    adaptable,
    as_peft_names,
    linear_layers,
    reject_bypassed,
    resolved_targets,
    short_name,
    wrapped,
)
from lit_mem.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REJECTED: Final = {
    "ADALORA": "reallocates its ranks after each step (update_and_allocate), which is not called in training here",
    "CPT": "learns from labelled parts of its own prompt, with its own loss",
    "LILY": "mixes its matrices by an average over all tokens of a batch, so a text's likelihood depends on the others",
    "MULTITASK_PROMPT_TUNING": "needs a task id with every text",
    "POLY": "needs a task id with every text",
    "SHADOW": "trains a second model with its own loss",
    "XLORA": "mixes adapters from other files",
}
_REJECTED_OPTIONS: Final = {
    "use_asa": "reallocates after each step (update_and_allocate), which is not called in training here",
    "eva_config": "needs a pass over the data before training",
    "corda_config": "needs a pass over the data before training",
    "lora_ga_config": "needs a pass over the data before training",
    "arrow_config": "loads further adapters",
    "monteclora_config": "has its own loss",
    "num_frozen_tokens": "creates untrained weights, which checkpoints do not contain",
}
_HERE: Final = frozenset({"task_type", "peft_type", "peft_version", "base_model_name_or_path", "revision"})
_OWN_TARGETS: Final = ("LN_TUNING", "ADAPTION_PROMPT", "TRAINABLE_TOKENS")
"""Methods that change something other than weight matrices; peft has defaults for the families it supports."""
_TARGETS: Final = {"IA3": ("k", "v", "down")}
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    # So that the untrained model equals the base.
    "C3A": {"init_weights": True},
    "FOURIERFT": {"init_weights": True},
    # So that a checkpoint, which holds only the trained weights, restores the model.
    "CARTRIDGE": {"num_frozen_tokens": 0},
    "SHIRA": {"random_seed": 0},
    "FROD": {"progressbar": False},
    "ADAPTION_PROMPT": {"adapter_len": 10},
}
_VIRTUAL_TOKENS: Final = 20


class Peft(Adapter):
    """Any peft method that training and scoring support, such as VeRA, LoHa, OFT or prefix tuning.

    Args:
        peft_type: name of the method in `peft.PeftType`, case-insensitive.
        targets: weight matrices, by short name (q, k, v, o, gate, up, down) or by the model's module names, or the
            string "all-linear". None: v and o, as for LoRA (k, v and down for IA3), if the method adapts matrices.
        options: fields of the method's peft configuration, such as {r: 8}. `target_modules` is passed to peft unchanged
            and replaces `targets`: a regular expression, or modules other than matrices.

    Raises:
        ConfigError: the method or an option is unknown or not supported.
    """

    def __init__(self, peft_type: str, targets: list[str] | None = None, options: dict[str, Any] | None = None) -> None:
        self.peft_type, self._known = _checked_type(peft_type)
        self.targets = targets
        self.options = {name: value for name, value in (options or {}).items() if value is not None}
        self._check_options()

    def _check_options(self) -> None:
        for name in self.options:
            if name in _REJECTED_OPTIONS and name in self._known:
                raise ConfigError(f"model.adapter.options names {name!r}: it {_REJECTED_OPTIONS[name]}; remove it")
            if name not in self._known:
                known = sorted(self._known - _REJECTED_OPTIONS.keys())
                raise ConfigError(
                    f"model.adapter.options names {name!r}, which is not an option of {self.peft_type} or is set by "
                    "the "
                    f"run; expected some of {', '.join(known)}"
                )
        if self.targets is None:
            return
        if "target_modules" not in self._known or self.peft_type in _OWN_TARGETS:
            raise ConfigError(
                f"model.adapter.targets is {self.targets!r}, but {self.peft_type} does not adapt matrices; expected "
                "null"
            )
        if "target_modules" in self.options or not self.targets:
            why = "empty" if not self.targets else "given together with model.adapter.options.target_modules"
            raise ConfigError(f"model.adapter.targets is {why}; expected one of the two, or neither")

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return a `peft.PeftModel` around `base`, whose weights are frozen.

        Raises:
            ConfigError: the model lacks a matrix, or peft rejects an option or the model.
        """
        given = {"peft_type": self.peft_type, "task_type": "CAUSAL_LM"}
        options = {"num_virtual_tokens": _VIRTUAL_TOKENS} if "num_virtual_tokens" in self._known else {}
        if self.peft_type == "ADAPTION_PROMPT":
            options["adapter_layers"] = int(base.config.get_text_config().num_hidden_layers)
        options |= _DEFAULTS.get(self.peft_type, {}) | self.options
        if "target_modules" in self._known and "target_modules" not in options:
            options |= self._matrices(base, options)
        # Also for the user's own options: nothing that names code or files reaches peft.
        config = checked_config(given | options, base, "model.adapter.options", ConfigError)
        try:
            return wrapped(base, config)
        except (TypeError, AttributeError, KeyError, RuntimeError, NotImplementedError, ImportError) as error:
            line = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"model.adapter.peft_type {self.peft_type} does not support this model: {line}"
            ) from error

    def _matrices(self, base: PreTrainedModel, options: Mapping[str, Any]) -> dict[str, Any]:
        """Peft's options for the adapted weight matrices."""
        if self.peft_type in _OWN_TARGETS:
            return {}
        linear = linear_layers(base)
        everything = self.targets == [ALL_LINEAR]
        requested = list(_TARGETS.get(self.peft_type, ("v", "o"))) if self.targets is None else self.targets
        names = adaptable(base, linear) if everything else resolved_targets(requested, linear)
        reject_bypassed(base, names)
        layers = options.get("layers_to_transform")
        modules = as_peft_names(base, names, [layers] if isinstance(layers, int) else layers)
        found: dict[str, Any] = {"target_modules": modules}
        if modules != sorted(set(names)):
            found["layers_to_transform"] = None  # which peft ignores for full names
        if "fan_in_fan_out" in self._known and "fan_in_fan_out" not in options:
            found["fan_in_fan_out"] = all(linear[name] for name in names)
        if "feedforward_modules" in self._known and "feedforward_modules" not in options:
            found["feedforward_modules"] = [name for name in modules if short_name(name) == "down_proj"]
        return found


def _checked_type(given: str) -> tuple[str, frozenset[str]]:
    """The method's name, and the options that a run may set.

    Raises:
        ConfigError: the method is unknown or not supported.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

    name = given.strip().upper()
    by_name = {each.value: kind for each, kind in CLASSES.items()}
    if name in _REJECTED:
        raise ConfigError(f"model.adapter.peft_type is {given!r}: it {_REJECTED[name]}; expected another method")
    if name not in by_name:
        known = ", ".join(sorted(by_name.keys() - _REJECTED.keys()))
        raise ConfigError(f"model.adapter.peft_type is {given!r:.80}; expected one of {known}")
    own = {field.name for field in fields(by_name[name])}
    return name, frozenset(own - _HERE - DROPPED - {*REFUSED})
