"""Several attacks as one: a logistic regression over their scores, each example judged by others' fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lit_mem.errors import MetricError


def cross_validated_scores(columns: Mapping[str, Tensor], member: Tensor, folds: int = 5, seed: int = 0) -> Tensor:
    """Log-odds of membership by a logistic regression over attack scores, out of fold.

    The rows are dealt into folds, stratified by membership. Each fold is judged by scores standardised, and a
    regression fitted (L2-penalised, C = 1), on the other folds alone: no example takes part in its own judgement, so
    the AUROC of the result is not inflated by fitting. The folds' regressions differ a little in intercept and scale,
    which costs that AUROC a little.

    The rows are sorted by their scores before they are dealt, and the columns by name: the result belongs to the set,
    whatever order it comes in. Rows that agree in every score and in membership may trade places.

    Args:
        columns: by attack (N,) float scores, any real scale; a constant one changes nothing.
        member: (N,) bool, True = in the fine-tuning set.
        folds: how many; at least 2.
        seed: of the dealing.

    Returns:
        (N,) float64, higher = more member-like; 0 is even odds, given the set's own share of members.

    Raises:
        MetricError: there is no column, shapes differ, a score is not finite (leave out examples that an attack could
            not judge), there are fewer than 2 folds, or a set has fewer examples than there are folds.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = sorted(columns)
    _check(columns, member, folds)
    is_member = member.detach().cpu().bool().numpy()
    table = np.stack([columns[name].detach().cpu().double().numpy() for name in names], axis=1)
    # By powers of two, which standardising undoes exactly, so that no square of a score overflows.
    table = np.ldexp(table, -np.frexp(np.abs(table).max(axis=0))[1])
    order = np.lexsort((is_member, *table.T[::-1]))  # its last key sorts first
    # Newton's method: few columns, and an exact solution rather than one that depends on where it stopped.
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=1000))
    dealt = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    score = np.empty(len(table))
    score[order] = cross_val_predict(model, table[order], is_member[order], cv=dealt, method="decision_function")
    return torch.from_numpy(score)


def _check(columns: Mapping[str, Tensor], member: Tensor, folds: int) -> None:
    if not columns:
        raise MetricError("no attack scores to combine; expected at least one column")
    for name, column in columns.items():
        if column.ndim != 1 or column.shape != member.shape:
            raise MetricError(
                f"scores of {name!r} are {tuple(column.shape)}, member is {tuple(member.shape)}; expected (N,)"
            )
        if not torch.isfinite(column).all():
            bad = int((~torch.isfinite(column)).sum())
            raise MetricError(
                f"{bad} of {len(column)} scores of {name!r} are not finite; a score must be a real number"
            )
    if folds < 2:
        raise MetricError(f"combining attacks in {folds} folds; expected at least 2")
    n_members = int(member.sum())
    n_others = len(member) - n_members
    if min(n_members, n_others) < folds:
        raise MetricError(
            f"combining attacks in {folds} folds needs {folds} members and {folds} non-members, there are {n_members} "
            f"and {n_others}; validate more examples, or use fewer folds"
        )
