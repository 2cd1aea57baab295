"""Min-K% Prob: members have few tokens that surprise the model."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.errors import ConfigError
from lit_mem.types import TokenScores


class MinK(Attack):
    """Mean log-probability in nats of the least likely tokens of the example.

    Args:
        share: how many of the example's tokens are averaged, as a share of them, rounded down but at least one: of
            few tokens the share may be less than one, and the mean of none is no number.

    Source: Shi et al. 2024, "Detecting Pretraining Data from Large Language Models", section 4.
    """

    def __init__(self, share: float = 0.2) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"MinK.share is {share}; expected a number above 0, at most 1")
        self.share = share

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, at most 0, higher = more member-like."""
        mask = scores.mask.cpu()
        # Tokens that are not scored sort behind all others.
        ascending = scores.logprob.cpu().double().masked_fill(~mask, torch.inf).sort(dim=1).values
        # The product may fall a rounding error short of a whole number (0.29 of 100).
        k = (scores.n_tokens * self.share + 1e-9).floor().long().clamp(min=1)
        taken = torch.arange(mask.shape[1]) < torch.minimum(k, scores.n_tokens)[:, None]
        return torch.where(taken, ascending, 0.0).sum(dim=1) / k
