"""Probability that a text is sampled at least once in n tries, from its log-probability in one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _log_rate(logprob: Tensor) -> Tensor:
    """log(−log(1 − p)) of p = exp(logprob): p itself where it is small, as 1 − p would round to 1 below 1e-16."""
    p = logprob.exp()
    return torch.where(logprob < -30, logprob, (-torch.log1p(-p)).log())


def probability_within(logprob: Tensor, tries: float) -> Tensor:
    """Probability that a text is sampled at least once in n independent tries: 1 − (1 − p)^n.

    Args:
        logprob: (N,) float, log-probability of the text in one try, in nats; -inf if it is never sampled.
        tries: n, at least 1, of any size.

    Returns:
        (N,) float64 in [0, 1], with full relative precision however small p is: the plain formula gives 0 for p below
        1e-16 at any n, though p = 1e-17 in 1e18 tries is almost certain.

    Source: Hayes et al. 2024, "Measuring memorization through probabilistic discoverable extraction"
    (arXiv 2410.19482).

    >>> round(probability_within(torch.tensor([0.8]).log(), 2).item(), 6)
    0.96
    """
    logprob = logprob.detach().cpu().double()
    return -torch.expm1(-torch.exp(_log_rate(logprob) + math.log(tries)))


def log_tries(logprob: Tensor, p: float) -> Tensor:
    """Natural log of the number of tries in which a text is sampled at least once with probability p.

    Args:
        logprob: (N,) float, log-probability of the text in one try, in nats.
        p: the probability to reach, in (0, 1).

    Returns:
        (N,) float64: log(log(1 − p) / log(1 − p_z)); infinite for a text that is never sampled, and below 0 (less than
        one try) if one try is more than enough.

    Source: Hayes et al. 2024, as above.
    """
    logprob = logprob.detach().cpu().double()
    return math.log(-math.log1p(-p)) - _log_rate(logprob)
