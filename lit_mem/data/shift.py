"""Can a text-only classifier that never saw the model separate members from held-out rows?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from lit_mem.data.row_texts import texts_at
from lit_mem.functional.auroc import auroc
from lit_mem.functional.words import plain_words

_MIN_ROWS: Final = 20
_MIN_GROUPS: Final = 5


class Shift(NamedTuple):
    """How well a text-only classifier separates members from held-out rows: AUROC and 95 % interval, in [0, 1]."""

    auroc: float
    low: float
    high: float


def text_shift(
    members: Sequence[str],
    heldout: Sequence[str],
    member_groups: Sequence[str] | None = None,
    heldout_groups: Sequence[str] | None = None,
    max_rows: int = 2000,
    seed: int = 0,
) -> Shift | None:
    """AUROC of logistic regression on TF-IDF of words and characters, on rows that it was not fitted on.

    If text alone separates the sets, so may an attack, without any memorization (Duan et al. 2024; Das et al. 2024,
    "Blind baselines beat membership inference attacks"). Uses two stratified halves, keeping groups together: if a
    document were in both halves, its own words would be recognised, not its set (sentences of PHEE, in five folds:
    AUROC 0.73 instead of 0.49). Each half is scored by the classifier of the other, and evaluated separately: pooling
    the scores of two classifiers would bias the AUROC below 0.5, since each knows what the other does not contain.
    Returns the mean of the two AUROCs, and of the ends of their intervals (Obuchowski 1997), which is as wide as if
    both halves were perfectly correlated. Repeated texts within a set count once.

    Args:
        members: (M,) texts.
        heldout: (N,) texts.
        member_groups: (M,) names; None: every row is its own group.
        heldout_groups: (N,) names; None: every row is its own group.
        max_rows: maximum random rows per set.
        seed: seed of the sample and the halves.

    Returns:
        AUROC of members (positive) against held-out rows, 0.5 = not separable; or None with fewer than 20 rows or 5
        groups per set, or no words.
    """
    random = np.random.RandomState(seed)
    texts: list[str] = []
    groups: list[str] = []
    label: list[bool] = []
    sides = ((members, member_groups, True), (heldout, heldout_groups, False))
    for side, names, member in sides:
        chosen = np.sort(random.permutation(len(side))[:max_rows])
        there = texts_at(side, chosen.tolist())
        first = np.unique(np.array(there, dtype=object), return_index=True)[1]  # repeats would count several times
        chosen = chosen[np.sort(first)]
        texts += texts_at(side, chosen.tolist())
        # A name that cannot occur in the data, since the two sets share no row.
        groups += [f"\0{member}{i}" for i in chosen] if names is None else texts_at(names, chosen.tolist())
        label += [member] * len(chosen)
    is_member = np.array(label, dtype=bool)
    cluster = np.unique(np.array(groups, dtype=object), return_inverse=True)[1]
    for side_rows in (is_member, ~is_member):
        if side_rows.sum() < _MIN_ROWS or len(np.unique(cluster[side_rows])) < _MIN_GROUPS:
            return None
    halves = _halves(texts, is_member, cluster, seed)
    return None if halves is None else Shift(*np.mean(halves, axis=0).tolist())


def _halves(
    texts: list[str], is_member: np.ndarray[Any, Any], cluster: np.ndarray[Any, Any], seed: int
) -> list[Shift] | None:
    """Each half's AUROC, from the classifier of the other half."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    # Terms of a single row carry no information about other rows.
    common: dict[str, Any] = {"min_df": 2, "sublinear_tf": True, "dtype": np.float64}
    try:
        word = TfidfVectorizer(tokenizer=plain_words, token_pattern=None, ngram_range=(1, 2), **common)
        char = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common)
        features = hstack([word.fit_transform(texts), char.fit_transform(texts)]).tocsr()
    except ValueError:  # no term occurs in two texts
        return None
    grouped = len(np.unique(cluster)) < len(cluster)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(n_splits=2, shuffle=True, random_state=seed)
    halves = []
    for fit, out in splitter.split(features, is_member, cluster if grouped else None):
        if len(np.unique(is_member[fit])) < 2 or len(np.unique(is_member[out])) < 2:
            return None
        model = LogisticRegression(solver="liblinear", class_weight="balanced", max_iter=1000, random_state=seed)
        score = model.fit(features[fit], is_member[fit]).decision_function(features[out])
        halves.append(clustered_auroc(score, is_member[out], cluster[out]))
    return halves


def clustered_auroc(
    score: np.ndarray[Any, Any], is_member: np.ndarray[Any, Any], cluster: np.ndarray[Any, Any]
) -> Shift:
    """AUROC with a 95 % interval that accounts for correlated rows within clusters; see `functional.auroc`.

    Args:
        score: (N,) float, higher = more like a member.
        is_member: (N,) bool, at least two clusters on each side.
        cluster: (N,) int, rows of one document share a number.

    Returns:
        Area (ties counted half) and interval. With one row per cluster this equals the interval of attacks.

    Source: Obuchowski 1997, Biometrics 53:567-578.
    """
    import torch

    area = auroc(torch.from_numpy(score), torch.from_numpy(is_member), cluster=torch.from_numpy(cluster))
    return Shift(*area)
