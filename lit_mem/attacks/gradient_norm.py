"""The gradient-norm attack: members have small gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import batch_of, examples_of
from lit_mem.data.chunks import split
from lit_mem.data.encoding import Encoded, collate
from lit_mem.errors import ConfigError, MetricError
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.sharding.parameters import is_sharded
from lit_mem.types import IGNORED, Batch, Prober, TokenScores


class GradientNorm(ProbingAttack):
    """−‖∇_θ loss(x)‖₂ over all trained parameters, the loss being the mean over the example's scored tokens.

    One norm over all parameters, not a mean of per-tensor norms. It costs a forward and a backward pass per example.
    Training is unaffected: the gradients are not accumulated.

    Not available for a base that is sharded over processes (`trainer.strategy: sharded`).

    Sources: Nasr et al. 2019, "Comprehensive Privacy Analysis of Deep Learning" (gradients as the signal); Wang et al.
    2024, "Pandora's White-Box" (arXiv 2402.17012) (their norm, for language models).
    """

    _scorer: TokenScorer

    def prepare(self, prober: Prober) -> None:
        """Set up the scorer.

        Raises:
            ConfigError: the base is sharded over processes.
            MetricError: no parameter of the model is trained.
        """
        super().prepare(prober)
        if is_sharded(prober.language_model):
            raise ConfigError(
                "GradientNorm computes gradients of single texts, which is not possible when the model is sharded over "
                "processes; remove the attack, or set trainer.strategy to ddp"
            )
        if not any(p.requires_grad for p in prober.language_model.parameters()):
            raise MetricError("GradientNorm needs trained parameters, but none of the model's requires a gradient")
        self._scorer = TokenScorer(prober.language_model)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, at most 0, higher = more member-like; in nats per unit of weight.

        Raises:
            MetricError: the scores do not carry their batch.
        """
        batch_of(scores, "the gradient-norm attack")
        trained = [p for p in self.prober.language_model.parameters() if p.requires_grad]
        # Lightning validates in inference mode, whose tensors have no gradients; examples_of gives new ones.
        with torch.inference_mode(False), torch.enable_grad():
            result = torch.zeros(len(scores.example_id), dtype=torch.float64)
            for row, example in examples_of(scores):
                gradients = self._gradients(split(example), trained, scores.mask.device)
                norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
                result[row] = -torch.stack(norms).cpu().double().norm()
        return result

    def _gradients(
        self, rows: list[Encoded], trained: list[torch.nn.Parameter], device: torch.device
    ) -> Sequence[Tensor | None]:
        """Gradients of the mean loss over the labelled tokens of all rows of one text."""
        counts = [int((row.labels != IGNORED).sum()) for row in rows]
        found: list[Tensor | None] = []
        for row, count in zip(rows, counts, strict=True):
            alone = {k: v.to(device) for k, v in collate([row]).items() if isinstance(v, Tensor)}
            loss = self._scorer.loss(cast("Batch", alone)) * (count / sum(counts))
            more = torch.autograd.grad(loss, trained, allow_unused=True)
            found = [_sum(one, other) for one, other in zip(found, more, strict=True)] if found else list(more)
        return found


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
