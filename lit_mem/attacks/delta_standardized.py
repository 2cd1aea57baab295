"""What tuning changed for the text's own tokens, beside what it changed for the tokens that the model would write."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import batch_of
from lit_mem.errors import ConfigError
from lit_mem.scoring.log_ratio import LogRatioScorer
from lit_mem.sharding.parameters import is_sharded
from lit_mem.types import Prober, TokenScores

_LEAST: Final = 1e-4


class DeltaStandardized(ProbingAttack):
    """Σ_t (δ_t − μ_t) / √(Σ_t σ_t²), where δ_t(v) = log p(v | x_<t) − log p_ref(v | x_<t).

    μ_t and σ_t are the mean and the standard deviation of δ_t(v) over next tokens v drawn from the tuned model itself.
    μ_t is the Kullback-Leibler divergence of the tuned model from the reference: what a text gains that the tuned model
    could have written. A member's tokens gain more.

    (0.0001 nats)² is added to σ_t², since float32 log-probabilities resolve no less.

    The moments need the logits of both models at the same time, so stored scores of the reference do not serve: each
    validation computes the reference's pass again. Off by default for that reason.

    Not for a base that is spread over processes (`trainer.strategy: sharded`).

    Sources: the standardization, Bao et al. 2024, "Fast-DetectGPT" (arXiv 2310.05130), and Zhang et al. 2025,
    "Min-K%++" (arXiv 2404.02936), both for one model; of the ratio of two, this project.
    """

    _scorer: LogRatioScorer

    def prepare(self, prober: Prober) -> None:
        """Find out how to run both models.

        Raises:
            ConfigError: the base is spread over processes.
        """
        super().prepare(prober)
        if is_sharded(prober.language_model):
            raise ConfigError(
                "DeltaStandardized runs two models side by side, which trainer.strategy sharded does not support; "
                "leave it out, or set trainer.strategy to ddp"
            )
        with prober.forward_context():
            self._scorer = LogRatioScorer(prober.language_model, prober.reference_context)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, in standard deviations, higher = more member-like; exactly 0 while both models are the same.

        Raises:
            MetricError: the scores do not carry their batch.
        """
        batch = batch_of(scores, "the delta_standardized attack")
        with self.prober.forward_context():
            ratio = self._scorer(batch)
        assert ratio.mean is not None
        assert ratio.std is not None
        above = (ratio.logprob.cpu().double() - ratio.mean.cpu().double()).sum(dim=1)
        variance = (ratio.std.cpu().double().square() + _LEAST**2).masked_fill(~ratio.mask.cpu(), 0.0).sum(dim=1)
        return above / variance.sqrt().clamp(min=_LEAST)
