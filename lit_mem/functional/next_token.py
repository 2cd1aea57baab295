"""What the logits of a next-token distribution say of one token: all that `TokenScores` holds, in few readings.

A row is as long as the vocabulary, so a reading of all rows costs about as much as the mathematics in it. Each function
here gives the same numbers as the plain formula beside it in the tests.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_mem.types import Sampling


def is_greedy_choice(logits: Tensor, target: Tensor) -> Tensor:
    """(n,) bool, whether `argmax` of (n, V) logits is the (n,) int64 target; of tied tokens it is the first."""
    hit = logits.gather(1, target[:, None])[:, 0] == logits.amax(dim=-1)
    # amax is many times faster than argmax; only where the target is a maximum must ties be told.
    rows = hit.nonzero()[:, 0]
    hit[rows] = logits[rows].argmax(dim=-1) == target[rows]
    return hit


def moments(logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the log-probability of a token drawn from the distribution itself.

    Args:
        logprobs: (n, V) float32, normalised, in nats; -inf for a token that cannot come. Overwritten.

    Returns:
        (n,) float32 each: μ = Σ p log p, and σ = √(Σ p (log p − μ)²). Around the mean, since the difference of mean
        square and squared mean cancels where the model is sure.

    Source: Zhang et al. 2025, "Min-K%++" (arXiv 2404.02936).
    """
    p = logprobs.exp()
    mean = torch.linalg.vecdot(p, logprobs)
    if not mean.isfinite().all():
        # 0 times -inf: what cannot come counts for nothing.
        logprobs.clamp_(min=-1e4)
        mean = torch.linalg.vecdot(p, logprobs)
    variance = torch.linalg.vecdot(p, logprobs.sub_(mean[:, None]).square_())
    return mean, variance.sqrt()


def sampled_logprob(logits: Tensor, target: Tensor, scheme: Sampling) -> Tensor:
    """Log-probability of each target when drawn under a scheme.

    Args:
        logits: (n, V) float32.
        target: (n,) int64.
        scheme: temperature and top-k. Tokens tied with the k-th are drawn too, as in `extraction.decoding`.

    Returns:
        (n,) float32 in nats; -inf where the target is never drawn.
    """
    scaled = logits if scheme.temperature == 1 else logits / scheme.temperature
    wanted = scaled.gather(1, target[:, None])[:, 0]
    k, vocabulary = scheme.top_k, logits.shape[-1]
    if k is None or k >= vocabulary:
        return wanted - scaled.logsumexp(dim=-1)
    best = top_values(scaled, k + 1)
    lowest = best[:, k - 1 : k]
    total = best[:, :k].logsumexp(dim=-1)
    tied = (best[:, k] == lowest[:, 0]).nonzero()[:, 0]
    if len(tied):
        kept = scaled[tied].masked_fill(scaled[tied] < lowest[tied], -torch.inf)
        total[tied] = kept.logsumexp(dim=-1)
    return torch.where(wanted >= lowest[:, 0], wanted - total, -torch.inf)


def top_values(rows: Tensor, k: int) -> Tensor:
    """(n, k) float32, the k largest values of each of (n, V) rows, descending; the same as `rows.topk(k).values`.

    Cut into groups of columns, each of them lies in one of the k groups with the largest maxima; so only the maxima and
    these groups are sorted. Groups of about √(V / k) columns make both as few.
    """
    n, width = rows.shape
    group = 2 ** round(math.log2(max(4.0, width / k)) / 2)
    n_groups = width // group
    if n_groups <= k:
        return rows.topk(k).values
    grouped = rows[:, : n_groups * group].view(n, n_groups, group)
    chosen = grouped.amax(dim=-1).topk(k, sorted=False).indices
    among = grouped.gather(1, chosen[:, :, None].expand(-1, -1, group)).flatten(1)
    return torch.cat([among, rows[:, n_groups * group :]], dim=1).topk(k).values
