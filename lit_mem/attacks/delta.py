"""The change of each token's log-probability by tuning, for attacks with a reference; and tie-breaking by it."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from lit_mem.errors import MetricError
from lit_mem.types import TokenScores

_TIE: Final = 1e-9
"""Weight of a tie-breaker next to a score of about 1: less than one window's vote in a text of 10,000 tokens."""


def reference_of(scores: TokenScores, who: str) -> Tensor:
    """(B, T) float32, ℓ_t^ref in nats.

    Raises:
        MetricError: the scores carry no reference; `who` names the attack in the message.
    """
    if scores.reference is None:
        raise MetricError(f"{who} needs reference scores, but the module gave none")
    return scores.reference


def deltas(scores: TokenScores, who: str) -> Tensor:
    """(B, T) float64 on the CPU: δ_t = ℓ_t − ℓ_t^ref in nats; 0 for unscored tokens.

    Raises:
        MetricError: the scores carry no reference; `who` names the attack in the message.
    """
    difference = scores.logprob.cpu().double() - reference_of(scores, who).cpu().double()
    return difference.masked_fill(~scores.mask.cpu(), 0.0)


def ties_broken(score: Tensor, delta: Tensor, n_tokens: Tensor) -> Tensor:
    """Break ties between scores by the reference attack; the order of other scores is unchanged.

    Args:
        score: (B,) float64 in [−1, 1].
        delta: (B, T) float64, from `deltas`.
        n_tokens: (B,) int64, number of scored tokens.

    Returns:
        (B,) float64 in [−1, 1], within 2e-9 of `score`; 0 where the score and all δ_t are 0.
    """
    mean = delta.sum(dim=1) / n_tokens.clamp(min=1)
    # Strictly increasing and bounded, so that it never outweighs the score.
    return (score + _TIE * mean / (1 + mean.abs())) / (1 + _TIE)
