"""Scores of one token from the logits of a next-token distribution, in few passes over the logits.

A row is as long as the vocabulary, so a pass over all rows costs about as much as the computation on it. The tests
compare each function with its plain formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lit_mem.types import Sampling

_SORTED_AT_ONCE: Final = 256
"""Numbers that numpy sorts in vector registers: many such sorts are faster than a selection from one long row."""
_GROUPED_FROM: Final = 2048
"""Columns from which it is faster to select groups of columns first."""
_MOST_CANCELLED: Final = 16
"""Largest ratio of mean square and variance at which their difference is used: it magnifies rounding as much."""


@dataclass(frozen=True)
class Maxima:
    """The maximum of each group of adjacent columns, from one pass over the rows.

    Attributes:
        values: (n, G) float32; the last group may be narrower than the others.
        width: number of columns per group.
    """

    values: Tensor
    width: int

    @classmethod
    def of(cls, rows: Tensor, k: int = 1) -> Maxima:
        """Maxima of (n, V) rows, in groups of about √(V / k) columns: the best width for finding the top k.

        The top of short rows is found without them, so their groups have about √V columns.
        """
        n, total = rows.shape
        k = k if total >= _GROUPED_FROM else 1
        width = min(total, 2 ** round(math.log2(max(4.0, total / k)) / 2))
        whole = total // width
        values = rows[:, : whole * width].view(n, whole, width).amax(dim=-1)
        if total % width:
            values = torch.cat([values, rows[:, whole * width :].amax(dim=-1, keepdim=True)], dim=1)
        return cls(values, width)


def greedy_choice(rows: Tensor, maxima: Maxima | None = None) -> Tensor:
    """(n,) int64, `argmax` of (n, V) rows; the first of tied columns."""
    maxima = maxima or Maxima.of(rows)
    group = maxima.values.argmax(dim=-1, keepdim=True)
    # Only the first group with the largest value is searched. The last group may be narrower.
    columns = group * maxima.width + torch.arange(maxima.width, device=rows.device)
    found = rows.gather(1, columns.clamp(max=rows.shape[-1] - 1)).argmax(dim=-1, keepdim=True)
    return columns.gather(1, found)[:, 0].clamp(max=rows.shape[-1] - 1)


def read(
    logits: Tensor,
    target: Tensor,
    scratch: Tensor | None = None,
    moments: bool = False,
    largest: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Log-probability of each target, and with `moments` its mean and standard deviation over all tokens.

    The variance is the mean square less the squared mean, both of the logits below the largest, which saves a pass; if
    that difference would cancel digits, it is the mean of the squared deviations.

    Args:
        logits: (n, V) float32. Overwritten.
        target: (n,) int64.
        scratch: float32, at least (n, V): workspace, so that no memory is allocated. Overwritten.
        moments: also compute μ = Σ p log p and σ = √(Σ p (log p − μ)²) of the log-probability of a token sampled from
            the distribution.
        largest: (n, 1) the largest logit of each row, if known.

    Returns:
        (n,) float32 each, in nats.

    Source of the moments: Zhang et al. 2025, "Min-K%++" (arXiv 2404.02936).
    """
    powers = None if scratch is None else scratch[: len(logits)]
    shifted = logits.sub_(logits.amax(dim=-1, keepdim=True) if largest is None else largest)
    wanted = shifted.gather(1, target[:, None])[:, 0]
    powers = torch.exp(shifted, out=powers)
    total = powers.sum(dim=-1)
    normaliser = total.log()
    if not moments:
        return (wanted - normaliser,)
    mean = powers.mul_(shifted).sum(dim=-1) / total
    square = torch.linalg.vecdot(powers, shifted) / total
    variance = square - mean * mean
    # Also rows with NaN: 0 times infinity, of tokens that are masked.
    again = ~(variance * _MOST_CANCELLED >= square)
    if bool(again.any()):
        mean[again], variance[again] = _centred(shifted[again], total[again])
    return wanted - normaliser, mean - normaliser, variance.sqrt()


def _centred(shifted: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) mean and variance of (n, V) logits below the largest, of which `total` sums the exponentials."""
    powers = torch.exp(shifted)
    mean = torch.linalg.vecdot(powers, shifted) / total
    if not mean.isfinite().all():
        # 0 times -inf: tokens of probability 0 contribute nothing.
        shifted.clamp_(min=-1e4)
        mean = torch.linalg.vecdot(powers, shifted) / total
    variance = torch.linalg.vecdot(powers, shifted.sub_(mean[:, None]).square_()) / total
    if not variance.isfinite().all():
        # 0 times infinity: the square of the lowest float, which some models use to mask tokens.
        variance = torch.linalg.vecdot(powers, shifted.clamp_(max=1e8)) / total
    return mean, variance


def sampled_logprob(logits: Tensor, target: Tensor, scheme: Sampling, maxima: Maxima | None = None) -> Tensor:
    """Log-probability of each target when sampled under a scheme.

    Args:
        logits: (n, V) float32.
        target: (n,) int64.
        scheme: temperature and top-k. Tokens tied with the k-th can be sampled too, as in `generation.decoding`.
        maxima: maxima of the logits, if known.

    Returns:
        (n,) float32 in nats; -inf if the target is never sampled.
    """
    scaled = logits if scheme.temperature == 1 else logits / scheme.temperature
    wanted = scaled.gather(1, target[:, None])[:, 0]
    k, vocabulary = scheme.top_k, logits.shape[-1]
    if k is None or k >= vocabulary:
        return wanted - scaled.logsumexp(dim=-1)
    best = top_values(scaled, k + 1, maxima)
    lowest = best[:, k - 1 : k]
    total = best[:, :k].logsumexp(dim=-1)
    tied = (best[:, k] == lowest[:, 0]).nonzero()[:, 0]
    if len(tied):
        kept = scaled[tied].masked_fill(scaled[tied] < lowest[tied], -torch.inf)
        total[tied] = kept.logsumexp(dim=-1)
    return torch.where(wanted >= lowest[:, 0], wanted - total, -torch.inf)


def top_values(rows: Tensor, k: int, maxima: Maxima | None = None) -> Tensor:
    """(n, k) float32, the k largest values of each of (n, V) rows, descending; the same as `rows.topk(k).values`.

    In wide rows each of them is in one of the k groups of columns with the largest maxima; so only the maxima and these
    groups are sorted. `maxima` may be those of other rows that differ only by a positive factor.
    """
    if rows.shape[-1] < _GROUPED_FROM:
        return _sorted_top(rows, k)
    maxima = maxima or Maxima.of(rows, k)
    whole = rows.shape[-1] // maxima.width
    if whole <= k:
        return _sorted_top(rows, k)
    chosen = maxima.values[:, :whole].topk(k, sorted=False).indices
    grouped = rows[:, : whole * maxima.width].view(len(rows) * whole, maxima.width)
    places = chosen + torch.arange(len(rows), device=rows.device)[:, None] * whole
    among = grouped.index_select(0, places.flatten()).view(len(rows), -1)
    return _sorted_top(torch.cat([among, rows[:, whole * maxima.width :]], dim=1), k)


def _sorted_top(rows: Tensor, k: int) -> Tensor:
    """The same by sorting: the largest of each part of a row, then of all parts."""
    if rows.device.type != "cpu" or k > _SORTED_AT_ONCE // 4:
        return rows.topk(k).values
    numbers = rows.numpy()
    while numbers.shape[-1] > _SORTED_AT_ONCE:
        n, width = numbers.shape
        whole = width - width % _SORTED_AT_ONCE
        parts = np.sort(numbers[:, :whole].reshape(n, -1, _SORTED_AT_ONCE), axis=-1)[:, :, -k:].reshape(n, -1)
        numbers = np.concatenate([parts, numbers[:, whole:]], axis=1)
    return torch.from_numpy(np.sort(numbers, axis=-1)[:, : -k - 1 : -1].copy())
