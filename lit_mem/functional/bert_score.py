"""BERTScore's comparison of two texts given as token vectors."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize


def greedy_match_f1(left: Tensor, right: Tensor) -> float:
    """Match each token with the most similar one of the other text; return the F1 of both directions.

    Args:
        left: (n, D) float, one vector per token, n at least 1.
        right: (m, D) float, likewise.

    Returns:
        2PR / (P + R), with P the mean over `left` of the highest cosine with a token of `right`, and R the reverse. A
        negative best cosine counts as 0, as in the authors' code, so the result is in [0, 1]. Symmetric in the two
        texts.

    Source: Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT".

    >>> import torch
    >>> one, other = torch.eye(3)[:2], torch.eye(3)[1:2]
    >>> round(greedy_match_f1(one, other), 4)
    0.6667
    """
    cosine = (normalize(left.double(), dim=1) @ normalize(right.double(), dim=1).T).clamp(min=0, max=1)
    precision, recall = cosine.amax(dim=1).mean().item(), cosine.amax(dim=0).mean().item()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
