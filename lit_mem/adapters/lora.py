"""LoRA and its close relatives."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHORT_NAMES = {
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
"""The paper's names of the weight matrices, as LLaMA's modules call them."""


class LoRA(Adapter):
    """Low-rank adaptation of chosen weight matrices.

    Args:
        rank: rank of the update; the paper varies it.
        alpha: scale; the update is multiplied by alpha / rank. None: twice the rank.
        dropout: dropout before the update, in training only.
        targets: weight matrices, by short name (q, k, v, o, gate, up, down) or by module name as the model
            calls it (such as c_attn), or the one word "all-linear".
        layers: indices of the decoder layers to adapt, counted from 0; None: all.
        init: how the update starts: "default" (zero), "gaussian" (zero as well), or "pissa" / "olora", which
            rewrite the base weights, so that the reference must be a copy.
        rslora: scale by alpha / sqrt(rank) instead (Kalajdzievski 2023).
        dora: weight-decomposed LoRA (Liu et al. 2024).
        parameters: train at most so many, by the highest rank that allows it, in place of `rank`: matrices of different
            shapes get the same number of parameters, not the same rank. (DoRA's magnitudes come on top.)

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
        if rank < 1:
            raise ConfigError(f"model.adapter.rank is {rank}; expected 1 or more")
        if alpha is not None and not 0 < alpha < math.inf:
            raise ConfigError(f"model.adapter.alpha is {alpha}; expected a number above 0")
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.adapter.dropout is {dropout}; expected a number in [0, 1)")
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
        """Return a `peft.PeftModel` around `base`, whose weights are frozen."""
        from peft import LoraConfig, get_peft_model

        transposed = linear_layers(base)
        targets = sorted(transposed) if self.targets == ["all-linear"] else resolved_targets(self.targets, transposed)
        layers = self._checked_layers(base)
        rank = self._rank(base, targets, layers)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=2 * rank if self.alpha is None else self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets,
            fan_in_fan_out=all(transposed[name] for name in targets),
            layers_to_transform=layers,
            init_lora_weights=True if self.init == "default" else self.init,
            use_rslora=self.rslora,
            use_dora=self.dora,
            bias="none",
        )
        return cast("nn.Module", get_peft_model(base, config))

    def _rank(self, base: PreTrainedModel, targets: Collection[str], layers: Collection[int] | None) -> int:
        found = [(name, module) for name, module in base.named_modules() if name.rpartition(".")[2] in targets]
        sizes = [_shape(module) for name, module in found if layers is None or _layer(name) in layers]
        rank = self.rank
        if self.parameters is not None:
            rank = self.parameters // sum(map(sum, sizes))
            if rank < 1:
                raise ConfigError(
                    f"model.adapter.parameters is {self.parameters}; rank 1 already takes {sum(map(sum, sizes))}"
                )
        highest = max(map(min, sizes))
        if rank > highest:
            what = f"rank is {rank}" if self.parameters is None else f"parameters is {self.parameters}: rank {rank}"
            raise ConfigError(f"model.adapter.{what}; no matrix that it adapts has a rank above {highest}")
        return rank

    def _checked_layers(self, base: PreTrainedModel) -> list[int] | None:
        if self.layers is None:
            return None
        count = base.config.get_text_config().num_hidden_layers
        outside = [layer for layer in self.layers if not 0 <= layer < count]
        if outside or not self.layers:
            raise ConfigError(f"model.adapter.layers is {self.layers}; this model has layers 0 to {count - 1}")
        return self.layers


def _shape(layer: Any) -> tuple[int, int]:
    """Of a linear layer's matrix; quantized weights are stored in another shape."""
    return (layer.in_features, layer.out_features) if hasattr(layer, "in_features") else tuple(layer.weight.shape)


def _layer(name: str) -> int | None:
    """Which decoder layer a module belongs to."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def resolved_targets(asked: Sequence[str], linear: Collection[str]) -> list[str]:
    """Names of weight matrices as the model has them.

    Args:
        asked: short names or the model's own.
        linear: the model's own.

    Raises:
        ConfigError: it has no such matrix.
    """
    resolved = [SHORT_NAMES.get(name, name) for name in asked]
    for short, name in zip(asked, resolved, strict=True):
        if name not in linear:
            shorts = [short for short, full in SHORT_NAMES.items() if full in linear]
            raise ConfigError(
                f"model.adapter.targets names {short!r}, which this model does not have; "
                f"it has {', '.join(sorted(linear))}"
                + (f" (short: {', '.join(shorts)})" if shorts else "")
                + ", or all-linear"
            )
    return resolved


def linear_layers(model: Any) -> dict[str, bool]:
    """Names of the linear layers (their last part), the output layer left out.

    Returns:
        For each name whether its weight is stored transposed, as GPT-2's is.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return {
        name.rpartition(".")[2]: type(module).__name__ == "Conv1D"
        for name, module in model.named_modules()
        if module is not head and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }
