"""Shared by the attacks that compare the tuned model with several reference models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import batch_of
from lit_mem.errors import ConfigError
from lit_mem.types import Batch, Prober, TokenScores


class PopulationAttack(ProbingAttack):
    """An attack with reference models that were trained like the tuned model, but on other texts.

    Offline: no reference was trained on any of the examples. References are loaded once, and score an example once.

    Args:
        references: folders of adapters saved by peft for the same base, or ids or folders of whole models with the
            same tokenizer.

    Raises:
        ConfigError: there are too few, or one is listed twice.
    """

    fewest: ClassVar[int] = 1

    def __init__(self, references: list[str]) -> None:
        name = f"{type(self).__name__}.references"
        if len(references) < self.fewest:
            raise ConfigError(f"{name} names {len(references)} models; expected {self.fewest} or more")
        if twice := [model for model in references if references.count(model) > 1]:
            raise ConfigError(f"{name} names {twice[0]!r} twice; expected different models")
        self.references = references
        self._population: Callable[[Batch], Sequence[Tensor]] | None = None

    def prepare(self, prober: Prober) -> None:
        """Load the references, once.

        Raises:
            ModelError: one cannot be loaded.
        """
        super().prepare(prober)
        if self._population is None:
            self._population = prober.population(self.references)

    def reference_mean_logprob(self, scores: TokenScores) -> Tensor:
        """(R, B) float64 on the CPU: mean log-probability per token in nats, by reference and example.

        Raises:
            MetricError: the scores do not carry their batch.
        """
        assert self._population is not None
        logprobs = self._population(batch_of(scores, type(self).__name__))
        mask = scores.mask.cpu()
        totals = [torch.where(mask, logprob.cpu().double(), 0.0).sum(dim=1) for logprob in logprobs]
        return torch.stack(totals) / scores.n_tokens.clamp(min=1)
