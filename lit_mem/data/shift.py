"""Can a classifier that never saw the model tell members from held-out rows by their text?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from lit_mem.functional.auroc import auroc
from lit_mem.functional.words import plain_words

_FOLDS: Final = 5
_MIN_ROWS: Final = 20


class Shift(NamedTuple):
    """How well text alone tells members from held-out rows: AUROC and 95 % interval, in [0, 1]."""

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
    """Out-of-fold AUROC of logistic regression on TF-IDF of words and characters.

    If text alone tells the sets apart, so may an attack, with no memorization at all (Duan et al.
    2024; Das et al. 2024, "Blind baselines beat membership inference attacks"). Five folds,
    stratified, groups whole: of a document split over folds its own words would be recognised, not
    its set (sentences of PHEE: AUROC 0.73 instead of 0.49). Scores are ranked within their fold,
    for the folds' classifiers have different intercepts. The variance is DeLong's for clustered
    rows (Obuchowski 1997), and does not count that the folds share training rows.

    Args:
        members: (M,) texts.
        heldout: (N,) texts.
        member_groups: (M,) names; None: every row is a group.
        heldout_groups: (N,) names; None: every row is a group.
        max_rows: at most so many random rows a side are used.
        seed: of the sample and the folds.

    Returns:
        AUROC over members (positive) and held-out rows, 0.5 = cannot tell; or None when there are
        fewer than 20 rows or 5 groups on a side, or no words: too few to say anything.
    """
    random = np.random.RandomState(seed)
    texts: list[str] = []
    groups: list[str] = []
    label: list[bool] = []
    sides = ((members, member_groups, True), (heldout, heldout_groups, False))
    for side, names, member in sides:
        chosen = np.sort(random.permutation(len(side))[:max_rows])
        texts += [side[i] for i in chosen]
        # A name that no data can have, as the two sides have no row in common.
        groups += [f"\0{member}{i}" if names is None else names[i] for i in chosen]
        label += [member] * len(chosen)
    is_member = np.array(label, dtype=bool)
    cluster = np.unique(np.array(groups, dtype=object), return_inverse=True)[1]
    for side_rows in (is_member, ~is_member):
        if side_rows.sum() < _MIN_ROWS or len(np.unique(cluster[side_rows])) < _FOLDS:
            return None
    score = _out_of_fold(texts, is_member, cluster, seed)
    return None if score is None else clustered_auroc(score, is_member, cluster)


def _out_of_fold(
    texts: list[str], is_member: np.ndarray[Any, Any], cluster: np.ndarray[Any, Any], seed: int
) -> np.ndarray[Any, Any] | None:
    """(N,) float in (0, 1), each row's rank within its fold; higher = more like a member."""
    from scipy.sparse import hstack
    from scipy.stats import rankdata
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    # Terms of one row alone teach a classifier nothing about the rows of other folds.
    common: dict[str, Any] = {"min_df": 2, "sublinear_tf": True, "dtype": np.float64}
    try:
        word = TfidfVectorizer(tokenizer=plain_words, token_pattern=None, ngram_range=(1, 2), **common)
        char = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common)
        features = hstack([word.fit_transform(texts), char.fit_transform(texts)]).tocsr()
    except ValueError:  # no term stands in two texts
        return None
    grouped = len(np.unique(cluster)) < len(cluster)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(n_splits=_FOLDS, shuffle=True, random_state=seed)
    folds = splitter.split(features, is_member, cluster if grouped else None)
    score = np.full(len(texts), np.nan)
    for fit, out in folds:
        if len(np.unique(is_member[fit])) < 2 or len(np.unique(is_member[out])) < 2:
            return None
        model = LogisticRegression(solver="liblinear", class_weight="balanced", max_iter=1000, random_state=seed)
        raw = model.fit(features[fit], is_member[fit]).decision_function(features[out])
        score[out] = (rankdata(raw) - 0.5) / len(out)
    return score


def clustered_auroc(
    score: np.ndarray[Any, Any], is_member: np.ndarray[Any, Any], cluster: np.ndarray[Any, Any]
) -> Shift:
    """AUROC with a 95 % interval that allows for rows of one cluster being alike; see `functional.auroc`.

    Args:
        score: (N,) float, higher = more like a member.
        is_member: (N,) bool, at least two clusters on each side.
        cluster: (N,) int, rows of one document have one number.

    Returns:
        Area (ties counted half) and interval. With each row a cluster of its own this is the interval of attacks.

    Source: Obuchowski 1997, Biometrics 53:567-578.
    """
    import torch

    area = auroc(torch.from_numpy(score), torch.from_numpy(is_member), cluster=torch.from_numpy(cluster))
    return Shift(*area)
