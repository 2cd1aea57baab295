"""Group privacy: epsilon of private training for a person with several rows.

A step draws each of a person's k rows independently with probability q, so the norm of the person's part of the clipped
sum is at most Binomial(k, q) rows: the step is dominated by a mixture of Gaussians with means 0, C, … k·C and these
weights, against the one at 0 (Ganesh 2024, "Tight Group-Level DP Guarantees for DP-SGD with Sampling via Mixture of
Gaussians Mechanisms", arXiv 2401.10294). Its Rényi divergence is integrated numerically, in both directions, added over
steps, and converted as for one row (Mironov 2017; Balle et al. 2020).

This is far below the general rule, by which (ε, δ) for one row gives (k·ε, k·e^((k−1)·ε)·δ) for k (Vadhan 2017, "The
Complexity of Differential Privacy", Lemma 2.2): for k = 5 and ε = 8 that δ would be above 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from lit_mem.privacy.accountant import Steps, _quietly, merged
from lit_mem.privacy.extra import import_opacus

MOST_ROWS: Final = 64
"""Above this no bound is logged: computing it takes O(k²), and it is far above any useful ε."""

_MARGIN: Final = 14.0  # margin of the grid, in standard deviations
_POINT: Final = 0.05


def group_epsilon(history: Iterable[Steps], delta: float, rows: int) -> float:
    """An upper bound on the epsilon of these steps for a person with this many rows, at this δ.

    0 for no steps, infinite without noise. For one row it equals the accountant "rdp".

    Args:
        history: the steps, in any order.
        delta: δ, the probability that the bound fails.
        rows: k, the maximum rows of one person.
    """
    steps = merged(history)
    if not steps:
        return 0.0
    if any(step.noise_multiplier <= 0 for step in steps):
        return math.inf
    import_opacus()
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    orders = tuple(RDPAccountant.DEFAULT_ALPHAS)
    spent = sum(rdp_of_a_step(step.noise_multiplier, step.sample_rate, rows, orders) * step.number for step in steps)
    with _quietly():
        found, _ = get_privacy_spent(orders=orders, rdp=spent, delta=delta)
    return float(found) if math.isfinite(found) else math.inf


@lru_cache(maxsize=64)
def rdp_of_a_step(noise_multiplier: float, sample_rate: float, rows: int, orders: tuple[float, ...]) -> Any:
    """(A,) float64 Rényi divergences of one step at these orders, each above 1; the maximum of both directions.

    By the trapezoidal rule, which converges faster than any power for integrands as smooth as these: each is at least
    as wide as a standard normal density, and the grid has twenty points per standard deviation.
    """
    import numpy as np
    from scipy.special import gammaln, logsumexp

    means = np.arange(rows + 1) / noise_multiplier
    k = np.arange(rows + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = gammaln(rows + 1) - gammaln(k + 1) - gammaln(rows - k + 1)
        weights = weights + k * np.log(sample_rate)
        weights[:-1] += (rows - k[:-1]) * np.log1p(-sample_rate)
    end = max(orders) * means[-1] + _MARGIN
    x = np.linspace(-end, end, 2 * math.ceil(end / _POINT) + 1)
    ratio = np.full_like(x, -np.inf)
    for weight, mean in zip(weights, means, strict=True):
        if weight > -np.inf:
            np.logaddexp(ratio, weight + mean * x - mean**2 / 2, out=ratio)
    base = -(x**2) / 2 - math.log(2 * math.pi) / 2 + math.log(x[1] - x[0])
    found = []
    for order in orders:
        forward, backward = logsumexp(base + order * ratio), logsumexp(base + (1 - order) * ratio)
        found.append(max(float(forward), float(backward), 0.0) / (order - 1))
    return np.array(found)
