"""Log-ratio of tuned model and reference, standardized by its moments under the tuned model."""

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
    μ_t is the Kullback-Leibler divergence of the tuned model from the reference: the expected gain of a token sampled
    from the tuned model. Tokens of a member gain more.

    (0.0001 nats)² is added to σ_t², the resolution of float32 log-probabilities.

    The moments need the logits of both models at once, so stored reference scores cannot be used: each validation
    runs the reference again. Off by default for that reason.

    Does not support a sharded base (`trainer.strategy: sharded`).

    Sources: standardization for one model, Bao et al. 2024, "Fast-DetectGPT" (arXiv 2310.05130), and Zhang et al.
    2025, "Min-K%++" (arXiv 2404.02936); its use on the ratio of two models, this project.
    """

    _scorer: LogRatioScorer

    def prepare(self, prober: Prober) -> None:
        """Set up scoring by both models.

        Raises:
            ConfigError: the base is sharded.
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
        """(B,) float64, in standard deviations, higher = more member-like; exactly 0 while both models are equal.

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
