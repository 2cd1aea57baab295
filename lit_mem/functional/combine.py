"""Combine attacks by a logistic regression over their scores, fitted on one half and evaluated on the other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lit_mem.errors import MetricError

FEWEST: Final = 4
"""Minimum members, and minimum non-members: two in each half."""


def half_split_scores(columns: Mapping[str, Tensor], member: Tensor, example_id: Tensor, seed: int = 0) -> Tensor:
    """Log-odds of membership from a logistic regression over attack scores, for the half it was not fitted on.

    A hash of the example ids assigns half of the members and half of the non-members to the fit; scores are
    standardised and the regression is fitted (L2 penalty, C = 1) on these only. The other half is scored by it, so its
    AUROC is that of one fixed attack on unseen examples: 0.5 on average if the scores do not depend on membership, with
    the usual interval. Cross-validation gives neither: its pooled scores compare regressions that were each fitted on
    what the others score, and no interval for independent examples accounts for every example serving both purposes
    (with 300 and 300 it contained the true value in 84 to 87 %).

    The halves depend only on ids, membership and seed: they are the same at each validation, whatever the order of the
    rows.

    Args:
        columns: by attack (N,) float scores, any real scale; a constant column has no effect.
        member: (N,) bool, True = in the fine-tuning set.
        example_id: (N,) int64, unique.
        seed: seed of the split.

    Returns:
        (N,) float64, NaN for the half used for the fit (the smaller one if a set is odd); otherwise higher = more
        member-like, and 0 is even odds, given the set's own share of members.

    Raises:
        MetricError: there is no column, shapes differ, a score is not finite (remove examples that an attack could not
            score), or a set has fewer than 4 examples.

    Source: sample splitting, Cox 1975, "A note on data-splitting for the evaluation of significance levels".
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = sorted(columns)
    _check(columns, member, example_id)
    is_member = member.detach().cpu().bool().numpy()
    ids = example_id.detach().cpu().numpy()
    fit = np.zeros(len(ids), dtype=bool)
    key = _hashed(ids, seed)
    for side in (is_member, ~is_member):
        rows = np.flatnonzero(side)
        fit[rows[np.argsort(key[rows])[: len(rows) // 2]]] = True
    table = np.stack([columns[name].detach().cpu().double().numpy() for name in names], axis=1)
    # Scaled by powers of two, which standardising undoes exactly, so that no squared score overflows.
    table = np.ldexp(table, -np.frexp(np.abs(table).max(axis=0))[1])
    order = np.flatnonzero(fit)[np.argsort(ids[fit])]  # sums do not depend on the order of the rows
    # Newton's method: few columns, and an exact solution that does not depend on a stopping rule.
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=1000))
    with warnings.catch_warnings():
        # Where the start is the solution, as with constant scores, no step improves it: lbfgs takes over, and stays.
        warnings.filterwarnings("ignore", "Line search of Newton solver", ConvergenceWarning)
        model.fit(table[order], is_member[order])
    score = np.full(len(table), np.nan)
    score[~fit] = model.decision_function(table[~fit])
    return torch.from_numpy(score)


def _hashed(ids: Any, seed: int) -> Any:
    """(N,) uint64, distinct for each id: the finaliser of SplitMix64 (Steele, Lea & Flood 2014), a bijection."""
    import numpy as np

    x = ids.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _check(columns: Mapping[str, Tensor], member: Tensor, example_id: Tensor) -> None:
    if not columns:
        raise MetricError("no attack scores to combine; expected at least one column")
    for name, column in columns.items():
        if column.ndim != 1 or column.shape != member.shape or column.shape != example_id.shape:
            raise MetricError(
                f"scores of {name!r} are {tuple(column.shape)}, member is {tuple(member.shape)}, example_id is "
                f"{tuple(example_id.shape)}; expected (N,)"
            )
        if not torch.isfinite(column).all():
            bad = int((~torch.isfinite(column)).sum())
            raise MetricError(f"{bad} of {len(column)} scores of {name!r} are not finite; expected finite scores")
    n_members = int(member.sum())
    n_others = len(member) - n_members
    if min(n_members, n_others) < FEWEST:
        raise MetricError(
            f"combining attacks needs {FEWEST} members and {FEWEST} non-members; found {n_members} and {n_others}: "
            "validate more examples"
        )
