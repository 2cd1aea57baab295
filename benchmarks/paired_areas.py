"""Paired comparison of several attacks' AUROCs on the same texts and models.

DeLong's variance as a sum over texts: ψ_i = (V_i − A) / √(k (k − 1)), with V_i the placement value of text i among the
other set's scores, A the area and k the size of text i's set. The squares sum to DeLong's variance; those of the
difference of two attacks' ψ, to the variance of the paired difference; products, to covariances. Over several runs ψ is
divided by their number, and summed within clusters before squaring, since a text (or a patient) in several runs is one
observation, not several (Obuchowski).

The intervals are conditional on the trained models: they cover the choice of texts, not of training runs.

Sources: DeLong, DeLong & Clarke-Pearson 1988; Obuchowski 1997; Hothorn, Bretz & Westfall 2008, "Simultaneous Inference
in General Parametric Models" (all differences at once, by the largest of correlated normal deviates).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

Floats = Any  # a numpy array of float64

DRAWS = 200_000


@dataclass(frozen=True)
class Scored:
    """All scores of one run.

    Attributes:
        columns: by attack (N,) scores, higher = more member-like; NaN where it has no score.
        member: (N,) bool.
        cluster: (N,) what a text belongs to (a patient, an article), the same over runs.
    """

    columns: Mapping[str, Floats]
    member: Floats
    cluster: Sequence[str]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, with the ends of its interval.

    Attributes:
        value: the mean.
        low: lower end.
        high: upper end.
        runs: each run's.
    """

    value: float
    low: float
    high: float
    runs: tuple[float, ...]


def contributions(score: Floats, member: Floats) -> tuple[float, Floats]:
    """The area, ties counted half, and (N,) each text's contribution: sums to 0, and its squares to DeLong's variance.

    Args:
        score: (N,) finite.
        member: (N,) bool, at least two of each.
    """
    members, others = score[member], score[~member]
    m, n = len(members), len(others)
    joint = rankdata(np.concatenate([members, others]))
    placed_members = (joint[:m] - rankdata(members)) / n
    placed_others = 1 - (joint[m:] - rankdata(others)) / m
    area = float(placed_members.mean())
    added = np.zeros(len(score))
    added[member] = (placed_members - area) / math.sqrt(m * (m - 1))
    added[~member] = (placed_others - area) / math.sqrt(n * (n - 1))
    return area, added


def areas(runs: Sequence[Scored], level: float = 0.95) -> dict[str, Estimate]:
    """The mean area of each attack, on the texts that it scored; individual intervals, on the logit scale.

    With an area of 0 or 1, or no variance, the interval is [0, 1]: its width is unknown.
    """
    made = {}
    for name in runs[0].columns:
        found = [_judged(run, name, name) for run in runs]
        values = [contributions(run.columns[name], run.member) for run in found]
        area = float(np.mean([value for value, _ in values]))
        error = math.sqrt(_variances(_by_cluster(found, [added[:, None] for _, added in values]))[0, 0])
        low, high = 0.0, 1.0
        if error > 0 and 0 < area < 1:
            half = float(norm.ppf(0.5 + level / 2)) * error / (area * (1 - area))
            low, high = float(expit(logit(area) - half)), float(expit(logit(area) + half))
        made[name] = Estimate(area, low, high, tuple(value for value, _ in values))
    return made


def differences(runs: Sequence[Scored], beside: str, level: float = 0.95, seed: int = 0) -> dict[str, Estimate]:
    """The mean area of each attack minus that of the attack `beside`, on the texts that both scored.

    The intervals hold simultaneously: with probability `level` all of them contain their difference. Their half width
    is c standard errors, with c the quantile of the maximum of as many normal deviates, correlated as estimated.
    """
    names = [name for name in runs[0].columns if name != beside]
    kept, values = [], []
    for run in runs:
        added = np.zeros((len(run.member), len(names)))
        values.append([])
        for column, name in enumerate(names):
            judged = np.isfinite(run.columns[name]) & np.isfinite(run.columns[beside])
            (one, first), (other, second) = (
                contributions(run.columns[which][judged], run.member[judged]) for which in (name, beside)
            )
            added[judged, column] = first - second
            values[-1].append(one - other)
        kept.append(added)
    variances = _variances(_by_cluster(runs, kept))
    errors = np.sqrt(np.diag(variances))
    half = largest_deviate(variances, level, seed) * errors
    means = np.mean(values, axis=0)
    return {
        name: Estimate(float(mean), float(mean - h), float(mean + h), tuple(run[i] for run in values))
        for i, (name, mean, h) in enumerate(zip(names, means, half, strict=True))
    }


def largest_deviate(variances: Floats, level: float = 0.95, seed: int = 0) -> float:
    """The quantile of the maximum absolute value of K correlated standard normal deviates.

    Args:
        variances: (K, K) covariances; those without variance are skipped.
        level: probability of the quantile.
        seed: seed of the simulated draws.
    """
    errors = np.sqrt(np.diag(variances))
    there = errors > 0
    if not there.any():
        return 0.0
    correlation = variances[np.ix_(there, there)] / np.outer(errors[there], errors[there])
    root, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(root.clip(min=0))
    drawn = np.random.default_rng(seed).standard_normal((DRAWS, len(root))) @ factor.T
    return float(np.quantile(np.abs(drawn).max(axis=1), level))


def _judged(run: Scored, *names: str) -> Scored:
    judged = np.isfinite([run.columns[name] for name in names]).all(axis=0)
    columns = {name: run.columns[name][judged] for name in names}
    return Scored(columns, run.member[judged], [c for c, kept in zip(run.cluster, judged, strict=True) if kept])


def _by_cluster(runs: Sequence[Scored], added: Sequence[Floats]) -> Floats:
    """(C, K) each cluster's contribution to each mean over runs; `added` has (N, K) per run."""
    number = {name: i for i, name in enumerate(sorted({name for run in runs for name in run.cluster}))}
    total = np.zeros((len(number), added[0].shape[1]))
    for run, of_run in zip(runs, added, strict=True):
        np.add.at(total, [number[name] for name in run.cluster], of_run / len(runs))
    return total


def _variances(added: Floats) -> Floats:
    return added.T @ added
