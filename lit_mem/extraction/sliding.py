"""Extraction at each position of a long text, computed from the scoring pass."""

from __future__ import annotations

import torch
from torch import Tensor


def suffix_logprobs(logprob: Tensor, read: Tensor, begins: Tensor, prefix: int, suffix: int) -> Tensor:
    """Log p_z of each suffix of a text: Σ log p(x_t | x_<t) over its tokens, in nats.

    Args:
        logprob: (T,) float, log-probabilities of the text's tokens.
        read: (T,) bool, which tokens may be part of a suffix.
        begins: (T,) int64, start of the context of each token, ascending.
        prefix: minimum number of context tokens before each suffix.
        suffix: number of its tokens, z.

    Returns:
        (N,) float64, one for each position with `suffix` consecutive readable tokens, all of them scored with the
        `prefix` tokens before the suffix in their context.
    """
    n = len(logprob) - suffix + 1
    if n < 1:
        return torch.empty(0, dtype=torch.float64)
    values = torch.where(read, logprob.double(), 0.0)
    upto = torch.nn.functional.pad(values.cumsum(0), (1, 0))
    whole = torch.nn.functional.pad(read.long().cumsum(0), (1, 0))
    total = upto[suffix:] - upto[:-suffix]
    usable = whole[suffix:] - whole[:-suffix] == suffix
    # The last token's context starts last.
    usable &= torch.arange(n) - prefix >= begins[suffix - 1 :]
    return total[usable]


def longest_run(hit: Tensor, read: Tensor, begins: Tensor, prefix: int) -> int:
    """Length of the longest run that greedy decoding predicts correctly, each token given the true text before it.

    Args:
        hit: (T,) bool, greedy hits.
        read: (T,) bool, which tokens may be part of a run.
        begins: (T,) int64, start of the context of each token, ascending.
        prefix: a run ends before a token whose context restarts fewer than this many tokens before it.
    """
    right = hit & read
    anew = torch.zeros_like(right)
    anew[1:] = (begins[1:] != begins[:-1]) & (torch.arange(1, len(hit)) - begins[1:] < prefix)
    run = (~right | anew).long().cumsum(0)
    return int(torch.bincount(run[right], minlength=1).max()) if bool(right.any()) else 0
