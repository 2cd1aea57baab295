"""Shared by the Min-K% attacks: the mean of an example's lowest tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def lowest_mean(values: Tensor, mask: Tensor, share: float) -> Tensor:
    """Mean of the lowest values of each example.

    Args:
        values: (B, T) float, one value per token.
        mask: (B, T) bool, the tokens that count.
        share: share of them averaged, rounded down, but at least one token: of few tokens the share may be less than
            one, and the mean of none is undefined.

    Returns:
        (B,) float64 on the CPU; 0 if no token counts, NaN if one that counts is NaN.
    """
    values, mask = values.cpu().double(), mask.cpu()
    n_tokens = mask.sum(dim=1)
    # Tokens that do not count sort last.
    ascending = values.masked_fill(~mask, torch.inf).sort(dim=1).values
    # The product may fall a rounding error short of a whole number (0.29 of 100).
    k = (n_tokens * share + 1e-9).floor().long().clamp(min=1)
    taken = torch.arange(mask.shape[1]) < torch.minimum(k, n_tokens)[:, None]
    lowest = torch.where(taken, ascending, 0.0).sum(dim=1) / k
    # NaN sorts last, and would go unnoticed.
    return lowest.masked_fill((values.isnan() & mask).any(dim=1), torch.nan)
