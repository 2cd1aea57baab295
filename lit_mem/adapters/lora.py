"""LoRA and its variants."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.experts import Experts, chosen, stacked
from lit_mem.adapters.targets import (
    ALL_LINEAR,
    SHORT_NAMES,
    adaptable,
    as_peft_names,
    layer_number,
    linear_layers,
    linear_modules,
    reject_bypassed,
    resolved_targets,
    short_name,
    wrapped,
)
from lit_mem.errors import ConfigError, check_range

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LoRA(Adapter):
    """Low-rank adaptation of selected weight matrices.

    Args:
        rank: rank of the update.
        alpha: scaling; the update is multiplied by alpha / rank. None: twice the rank.
        dropout: dropout before the update, in training only.
        targets: weight matrices, by short name (q, k, v, o, gate, up, down) or by the model's module names (such as
            c_attn), or the string "all-linear", as in peft. Experts stacked in one parameter are named like matrices
            (gate_up_proj). Only the text decoder of a multimodal model is adapted.
        layers: zero-based indices of the decoder layers to adapt; None: all.
        init: initialisation of the update: "default" (zero), "gaussian" (also zero), or "pissa" / "olora", which
            rewrite the base weights, so that the reference must be a copy.
        rslora: scale by alpha / sqrt(rank) instead (Kalajdzievski 2023).
        dora: weight-decomposed LoRA (Liu et al. 2024).
        parameters: maximum number of trained parameters; picks the highest rank within it, in place of `rank`: matrices
            of different shapes get the same number of parameters, not the same rank. (DoRA's magnitudes are extra.)

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
    """

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.05,
        targets: list[str] | None = None,
        layers: list[int] | None = None,
        init: Literal["default", "gaussian", "pissa", "olora"] = "default",
        rslora: bool = False,
        dora: bool = False,
        parameters: int | None = None,
    ) -> None:
        check_range("model.adapter.rank", rank, at_least=1)
        check_range("model.adapter.alpha", alpha, above=0, or_null=True)
        check_range("model.adapter.dropout", dropout, at_least=0, below=1)
        if targets is not None and not targets:
            raise ConfigError(f"model.adapter.targets is empty; expected some of {', '.join(SHORT_NAMES)}")
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets if targets is not None else ["v", "o"]
        self.layers = layers
        self.init = init
        self.rslora = rslora
        self.dora = dora
        self.parameters = parameters

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return a `peft.PeftModel` around `base`, with frozen base weights."""
        from peft import LoraConfig

        linear, layers = linear_layers(base), self._checked_layers(base)
        experts, linear_targets = chosen(base, self.targets, linear, layers)
        everything = self.targets == [ALL_LINEAR]
        targets = adaptable(base, linear) if everything else resolved_targets(linear_targets, [*linear, *stacked(base)])
        reject_bypassed(base, targets)
        self._check_goes_with(experts)
        rank = self._rank(base, targets, layers, experts)
        alpha = 2 * rank if self.alpha is None else self.alpha
        names = as_peft_names(base, targets, layers)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=names,
            target_parameters=experts.names() or None,
            rank_pattern={rf".*\.{re.escape(name)}": rank * n for name, n in experts.factor.items() if n > 1},
            alpha_pattern={rf".*\.{re.escape(name)}": alpha * n for name, n in experts.factor.items() if n > 1},
            fan_in_fan_out=bool(targets) and all(linear[name] for name in targets),
            layers_to_transform=layers if names == sorted(set(targets)) and targets else None,
            init_lora_weights=True if self.init == "default" else self.init,
            use_rslora=self.rslora,
            use_dora=self.dora,
            bias="none",
        )
        return wrapped(base, config)

    def _check_goes_with(self, experts: Experts) -> None:
        if not experts.parameters:
            return
        what = f"adapts the experts' {', '.join(sorted(experts.parameters))}, each stacked in one parameter"
        for option, value, expected in (
            ("dropout", self.dropout, 0.0),
            ("dora", self.dora, False),
            ("init", self.init if self.init in ("pissa", "olora") else "default", "default"),
        ):
            if value != expected:
                raise ConfigError(
                    f"model.adapter.{option} is {value}, which peft supports only for linear layers, but "
                    f"model.adapter.targets {what}; set {option} to {str(expected).lower()}, or use other targets"
                )

    def _rank(
        self, base: PreTrainedModel, targets: Collection[str], layers: Collection[int] | None, experts: Experts
    ) -> int:
        found = [(name, module) for name, module in linear_modules(base).items() if short_name(name) in targets]
        shapes = [_shape(module) for name, module in found if layers is None or layer_number(name) in layers]
        costs = [*map(sum, shapes), *(cost for cost, _ in experts.sizes())]
        rank = self.rank
        if self.parameters is not None:
            rank = self.parameters // sum(costs)
            if rank < 1:
                raise ConfigError(
                    f"model.adapter.parameters is {self.parameters}; expected at least {sum(costs)}, the parameters "
                    "of rank 1"
                )
        highest = max([*map(min, shapes), *(most for _, most in experts.sizes())])
        if rank > highest:
            what = f"rank is {rank}" if self.parameters is None else f"parameters is {self.parameters}: rank {rank}"
            raise ConfigError(
                f"model.adapter.{what}; expected at most {highest}, the highest rank of an adapted matrix"
            )
        return rank

    def _checked_layers(self, base: PreTrainedModel) -> list[int] | None:
        if self.layers is None:
            return None
        count = base.config.get_text_config().num_hidden_layers
        outside = [layer for layer in self.layers if not 0 <= layer < count]
        if outside or not self.layers:
            raise ConfigError(f"model.adapter.layers is {self.layers}; expected indices from 0 to {count - 1}")
        return self.layers


def _shape(layer: Any) -> tuple[int, int]:
    """Shape of a linear layer's matrix; quantized weights are stored in another shape."""
    return (layer.in_features, layer.out_features) if hasattr(layer, "in_features") else tuple(layer.weight.shape)
