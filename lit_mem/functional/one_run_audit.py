"""A lower bound on epsilon from guesses about the canaries of one training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lit_mem.errors import MetricError, check_range

_TIES: Final = 0  # seed of the order of tied scores


class Audit(NamedTuple):
    """The result of an audit.

    Attributes:
        epsilon: at this confidence the mechanism is not (ε, δ)-differentially private for any ε below this value; 0 if
            the guesses prove nothing.
        n_guesses: r, number of guesses behind the bound.
        n_correct: v, number of correct guesses.
    """

    epsilon: float
    n_guesses: int
    n_correct: int


def p_value(n_canaries: int, n_guesses: int, n_correct: int, epsilon: float, delta: float = 0.0) -> float:
    """Bound on the probability of at least v correct guesses if the mechanism is (ε, δ)-differentially private.

    With B ~ Bin(r, q), q = e^ε / (1 + e^ε): P[B ≥ v] + 2 m δ max over i of P[v − i ≤ B < v] / i, at most 1.

    Args:
        n_canaries: m, each included in the training set, once, by its own fair coin.
        n_guesses: r, at most m: number of canaries guessed as in or out; the others are abstentions.
        n_correct: v, at most r.
        epsilon: at least 0.
        delta: in [0, 1].

    Raises:
        MetricError: the counts are inconsistent.

    Source: Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846), theorem
    5.2 and appendix D.

    >>> round(p_value(100, 100, 90, epsilon=1.0, delta=1e-3), 6)
    0.008167
    """
    import numpy as np
    from scipy.special import expit
    from scipy.stats import binom

    if not 0 <= n_correct <= n_guesses <= n_canaries:
        raise MetricError(
            f"found {n_correct} correct of {n_guesses} guesses about {n_canaries} canaries; "
            "expected correct <= guesses <= canaries"
        )
    # Use the probability of a wrong guess, which keeps precision when that of a correct one rounds to 1.
    n_wrong, miss = n_guesses - n_correct, float(expit(-epsilon))
    tail = float(binom.cdf(n_wrong, n_guesses, miss))
    if delta == 0 or n_correct == 0:
        return min(1.0, tail)
    # P[B = v − 1], P[B = v − 2], …: sums of positive terms; a difference of tails would cancel.
    below = binom.pmf(np.arange(n_wrong + 1, n_guesses + 1), n_guesses, miss)
    most = float((np.cumsum(below) / np.arange(1, n_correct + 1)).max())
    return min(1.0, tail + 2 * n_canaries * delta * most)


def epsilon_lower_bound(
    n_canaries: int, n_guesses: int, n_correct: int, delta: float = 0.0, confidence: float = 0.95
) -> float:
    """Lower confidence bound on the mechanism's ε at δ: the largest ε that the guesses refute.

    Valid for a number of guesses fixed before the scores were seen; to try several, see `one_run_audit`. With all
    guesses correct and δ = 0 it is logit(α^(1/r)), α = 1 − confidence, the most that r guesses can prove.

    Args:
        n_canaries: as for `p_value`.
        n_guesses: as for `p_value`.
        n_correct: as for `p_value`.
        delta: in [0, 1]; the bound is above 0 only if it is far below 1 / m.
        confidence: in (0, 1).

    Returns:
        ε in nats, at least 0; never above the exact bound, and within 1e-9 (relative) of it.

    Raises:
        MetricError: the counts are inconsistent, or `delta` or `confidence` is out of range.

    >>> round(epsilon_lower_bound(1000, 100, 95, delta=1e-5), 6)
    2.165176
    """
    check_range("delta", delta, at_least=0, at_most=1, kind=MetricError)
    check_range("confidence", confidence, above=0, below=1, kind=MetricError)

    def refuted(epsilon: float) -> bool:
        return p_value(n_canaries, n_guesses, n_correct, epsilon, delta) < 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def n_correct_guesses(score: Tensor, member: Tensor, n_in: int, n_out: int) -> int:
    """Number of correct guesses: "in" for the highest scores, "out" for the lowest, no guess for the others.

    Tied scores are ordered by a fixed random order, which is independent of the coins. If all scores are equal, as
    before training, no guess counts as correct.

    Args:
        score: (m,) float, higher = more likely in.
        member: (m,) bool, the coins.
        n_in: k₊, number guessed to be in.
        n_out: k₋, number guessed to be out; k₊ + k₋ is at most m.

    Raises:
        MetricError: more guesses than canaries, the shapes differ, or a score is not finite.

    >>> n_correct_guesses(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([True, False, True, False]), 1, 2)
    2
    """
    if score.ndim != 1 or score.shape != member.shape:
        raise MetricError(f"expected two (m,) tensors, got score {tuple(score.shape)}, member {tuple(member.shape)}")
    if n_in < 0 or n_out < 0 or n_in + n_out > len(score):
        raise MetricError(
            f"found {n_in} and {n_out} guesses; expected counts of at least 0, together at most {len(score)} canaries"
        )
    score, member = score.detach().cpu().double(), member.detach().cpu().bool()
    if not torch.isfinite(score).all():
        bad = int((~torch.isfinite(score)).sum())
        raise MetricError(f"{bad} of {len(score)} canaries' scores are not finite; expected finite scores")
    if not len(score) or score.min() == score.max():
        return 0
    shuffled = torch.randperm(len(score), generator=torch.Generator().manual_seed(_TIES))
    order = shuffled[score[shuffled].argsort(descending=True, stable=True)]
    return int(member[order[:n_in]].sum()) + int((~member[order[len(order) - n_out :]]).sum())


def one_run_audit(
    score: Tensor, member: Tensor, guesses: Sequence[int], delta: float = 0.0, confidence: float = 0.95
) -> Audit:
    """Lower bound on ε from the scores of canaries, the best over several numbers of guesses.

    For each number r the ⌈r/2⌉ highest scores are guessed "in" and the ⌊r/2⌋ lowest "out". The maximum of several
    bounds would exceed the true value too often, so each is computed at level α divided by their number (Bonferroni),
    and the best one holds at 1 − α.

    Args:
        score: (m,) float, higher = more likely in. Rows may be in any order that is independent of the coins.
        member: (m,) bool: whether each canary's own fair coin included it, once, in the training set.
        guesses: numbers of guesses, fixed before the scores were seen; at least one, each in [1, m].
        delta: in [0, 1].
        confidence: in (0, 1), of the bound returned.

    Raises:
        MetricError: `guesses` is empty or out of range; and as for `n_correct_guesses`.

    >>> audit = one_run_audit(torch.arange(20.0), torch.arange(20) >= 10, guesses=[10, 20])
    >>> audit.n_correct, audit.n_guesses, round(audit.epsilon, 3)
    (20, 20, 1.597)
    """
    tried = sorted(set(guesses))
    if not tried or tried[0] < 1 or tried[-1] > len(score):
        raise MetricError(f"numbers of guesses are {list(guesses)}; expected at least one, from 1 to {len(score)}")
    level = 1 - (1 - confidence) / len(tried)
    found = []
    for n in tried:
        n_correct = n_correct_guesses(score, member, n - n // 2, n // 2)
        found.append(Audit(epsilon_lower_bound(len(score), n, n_correct, delta, level), n, n_correct))
    return max(found, key=lambda audit: audit.epsilon)
