"""Can a classifier that never saw the model tell members from held-out rows by their text?"""

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
    """AUROC of logistic regression on TF-IDF of words and characters, on rows that it was not fitted on.

    If text alone tells the sets apart, so may an attack, with no memorization at all (Duan et al.
    2024; Das et al. 2024, "Blind baselines beat membership inference attacks"). Two halves,
    stratified, groups whole: of a document split over both its own words would be recognised, not
    its set (sentences of PHEE, in five folds: AUROC 0.73 instead of 0.49). Each half is judged by the classifier
    of the other, and by itself: scores of two classifiers are not compared, which would bias the
    AUROC below 0.5, as each knows what the other does not hold. What is returned is the mean of the
    two AUROCs, and of the ends of their intervals (Obuchowski 1997): those are as wide as if both
    halves agreed by chance altogether, which is what they nearly do where there is no difference. A
    text that stands on one side several times counts once.

    Args:
        members: (M,) texts.
        heldout: (N,) texts.
        member_groups: (M,) names; None: every row is a group.
        heldout_groups: (N,) names; None: every row is a group.
        max_rows: at most so many random rows a side are used.
        seed: of the sample and the halves.

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
        there = texts_at(side, chosen.tolist())
        first = np.unique(np.array(there, dtype=object), return_index=True)[1]  # repeats would vote several times
        chosen = chosen[np.sort(first)]
        texts += texts_at(side, chosen.tolist())
        # A name that no data can have, as the two sides have no row in common.
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
    """Each half's AUROC, by the classifier of the other half."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    # Terms of one row alone teach a classifier nothing about other rows.
    common: dict[str, Any] = {"min_df": 2, "sublinear_tf": True, "dtype": np.float64}
    try:
        word = TfidfVectorizer(tokenizer=plain_words, token_pattern=None, ngram_range=(1, 2), **common)
        char = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common)
        features = hstack([word.fit_transform(texts), char.fit_transform(texts)]).tocsr()
    except ValueError:  # no term stands in two texts
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
