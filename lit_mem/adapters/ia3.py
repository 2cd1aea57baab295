"""IA3: a factor for each output of chosen layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.lora import linear_layers, resolved_targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class IA3(Adapter):
    """Trained factors on activations: of keys and values, and of what goes into the layer that ends each MLP.

    Args:
        targets: weight matrices, by short name (q, k, v, o, gate, up, down) or as the model calls them.
        feedforward: those of them whose input is scaled, and not their output.

    Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning".
    """

    def __init__(self, targets: list[str] | None = None, feedforward: list[str] | None = None) -> None:
        self.targets = targets if targets is not None else ["k", "v", "down"]
        self.feedforward = feedforward if feedforward is not None else [t for t in self.targets if t == "down"]

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return a `peft.PeftModel` around `base`, whose weights are frozen."""
        from peft import IA3Config, get_peft_model

        transposed = linear_layers(base)
        targets = resolved_targets(self.targets, transposed)
        config = IA3Config(
            task_type="CAUSAL_LM",
            target_modules=targets,
            feedforward_modules=resolved_targets(self.feedforward, transposed),
            fan_in_fan_out=all(transposed[name] for name in targets),
        )
        return cast("nn.Module", get_peft_model(base, config))
