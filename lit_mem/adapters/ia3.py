"""IA3: a trained factor for each output of selected layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from lit_mem.adapters.base import Adapter
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

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class IA3(Adapter):
    """Trained factors on activations: keys, values, and the input of the last layer of each MLP.

    Args:
        targets: weight matrices, by short name (q, k, v, o, gate, up, down) or by the model's module names, or the
            string "all-linear".
        feedforward: those whose input is scaled instead of the output. None: down.

    Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning".
    """

    def __init__(self, targets: list[str] | None = None, feedforward: list[str] | None = None) -> None:
        self.targets = targets if targets is not None else ["k", "v", "down"]
        self.feedforward = feedforward if feedforward is not None else [t for t in self.targets if t == "down"]

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return a `peft.PeftModel` around `base`, with frozen base weights."""
        from peft import IA3Config

        linear = linear_layers(base)
        everything = self.targets == [ALL_LINEAR]
        targets = adaptable(base, linear) if everything else resolved_targets(self.targets, linear)
        feedforward = resolved_targets(self.feedforward, linear)
        if everything and not feedforward:
            feedforward = [name for name in ("down_proj",) if name in targets]
        reject_bypassed(base, targets)
        names = as_peft_names(base, targets)
        config = IA3Config(
            task_type="CAUSAL_LM",
            target_modules=names,
            feedforward_modules=[name for name in names if short_name(name) in feedforward],
            fan_in_fan_out=all(linear[name] for name in targets),
        )
        return wrapped(base, config)
