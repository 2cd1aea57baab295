import dataclasses
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from lit_mem.data import overlap
from lit_mem.data.checks import check_texts, check_trust
from lit_mem.data.overlap import near_matches, normalized, shingles
from lit_mem.data.shift import Shift, clustered_auroc, text_shift
from lit_mem.errors import ConfigError
from lit_mem.functional.auroc import auroc

WORDS = [f"w{n}" for n in range(60)]


def sentences(n, seed, words=WORDS, length=12):
    dice = random.Random(seed)
    return [" ".join(dice.choices(words, k=length)) for _ in range(n)]


SHORT = st.lists(st.lists(st.sampled_from(["a", "b", "c", "!"]), max_size=8).map(" ".join), max_size=8)


@pytest.mark.slow
@settings(max_examples=3 * settings.default.max_examples, deadline=None)
@given(members=SHORT, heldout=SHORT, threshold=st.sampled_from([0.1, 0.5, 0.6, 0.7, 0.9, 1.0]))
def test_near_matches_are_those_of_a_naive_search(members, heldout, threshold):
    def similarity(one, other):
        if normalized(one) == normalized(other):
            return 1.0
        a, b = shingles(one), shingles(other)
        return len(a & b) / len(a | b) if a and b else 0.0

    found = near_matches(members, heldout, threshold)
    for j, text in enumerate(heldout):
        best = max((similarity(member, text) for member in members), default=0.0)
        assert (j in found) == (best >= threshold)
        if j in found:
            assert similarity(members[found[j]], text) == best


def test_chunks_change_nothing(monkeypatch):
    members, heldout = sentences(60, 0, WORDS[:4], 6), sentences(40, 1, WORDS[:4], 6)
    whole = near_matches(members, heldout, 0.3)
    monkeypatch.setattr(overlap, "_CHUNK_ENTRIES", 7)
    monkeypatch.setattr(overlap, "_CHUNK_PAIRS", 3)
    assert near_matches(members, heldout, 0.3) == whole
    assert whole


def test_many_copies_cost_little():
    assert len(near_matches(["One and the same text."] * 5000, ["one and the same, text"] * 5000)) == 5000


def test_what_is_counted():
    members = ["A rash on both arms.", "Fever.", "fever", "Fever.", "He had hives all over.", "!!"]
    heldout = ["A rash on both arms.", "a rash, on both arms", "A rash on both arms today.", "?"]
    report = check_texts(
        members,
        heldout,
        groups=(["1", "2", "2", "3", "4", "5"], ["1", "1", "6", "7"]),
        origins=([f"train.json:{n}" for n in range(1, 7)], [f"dev.json:{n}" for n in range(1, 5)]),
        near_jaccard=0.8,
    )
    assert (report.repeats_exact, report.repeats_normalized) == (1, 2)
    assert (report.shared_exact, report.shared_normalized, report.shared_near) == (1, 2, 2)
    assert (report.shared_groups, report.shared_group_rows) == (1, 2)
    assert report.shift is None
    assert report.verdict == "not measured"
    assert report.examples["repeat"] == ["train.json:4 = train.json:2"]
    assert report.examples["near"] == ["dev.json:1 = train.json:1", "dev.json:2 = train.json:1"]
    assert [line.split(" have ")[0] for line in report.warnings[:2]] == [
        "2 of 4 held-out rows",
        "1 groups",
    ]
    said = " ".join([*report.summary(), *report.warnings])
    assert not any(word in said.lower() for word in ("rash", "hives", "arms"))
    assert "\n" not in said
    assert check_texts(members, heldout, near_jaccard=0.7).shared_near == 3


def test_one_source_is_not_flagged():
    report = check_texts(sentences(300, 0), sentences(300, 1))
    assert report.verdict == "cannot tell"
    assert report.warnings == []
    assert "not separable by text alone" in report.summary()[-1]


def test_another_source_is_flagged():
    other = [*WORDS[:30], *(f"v{n}" for n in range(30))]
    report = check_texts(sentences(200, 0), sentences(200, 1, other))
    assert report.verdict == "shift"
    assert report.shift.low > 0.9
    assert len(report.warnings) == 1
    assert "seem too strong" in report.warnings[0]
    assert "group_column" in report.warnings[0]


def test_documents_within_a_set_are_not_a_shift():
    """Rows of a document share rare words: without groups that looks like a difference."""
    sides, groups, dice = [], [], random.Random(0)
    for side in "ab":
        texts = []
        for _ in range(60):
            own = ["".join(dice.choices("abcdefghij", k=6)) for _ in range(5)]
            texts += [" ".join(dice.choices(WORDS, k=12) + dice.choices(own, k=4)) for _ in "1234"]
        sides.append(texts)
        groups.append([f"{side}{n // 4}" for n in range(240)])
    assert check_texts(*sides).verdict == "shift"
    report = check_texts(*sides, groups=tuple(groups))
    assert report.verdict == "cannot tell"
    assert report.grouped


def paired(n, seed=0):
    """Each member has a held-out row that shares its rare words: one document's rows on both sides."""
    dice = random.Random(seed)
    own = [["".join(dice.choices("abcdefghij", k=6)) for _ in range(4)] for _ in range(n)]
    return [[" ".join(dice.choices(WORDS, k=8) + rare) for rare in own] for _ in "ab"]


def test_below_one_half_is_explained():
    report = check_texts(*paired(150))
    assert report.shift.auroc < report.shift.high < 0.5
    assert report.verdict == "below"
    assert "does not rule out" in report.summary()[-1]
    assert "as it should be" not in report.summary()[-1]
    assert len(report.warnings) == 1
    assert "may seem too weak. Split by group" in report.warnings[0]


@pytest.mark.parametrize(
    ("shift", "verdict", "said"),
    [
        (Shift(0.341, 0.212, 0.469), "below", "does not rule out"),
        (Shift(0.45, 0.41, 0.499), "below", "does not rule out"),
        (Shift(0.47, 0.40, 0.54), "cannot tell", "as expected"),
        (Shift(0.5, 0.3, 0.7), "cannot tell", "up to 0.70 possible"),
        (Shift(0.55, 0.501, 0.6), "slight", "differ slightly"),
        (Shift(0.8, 0.56, 0.9), "shift", "the sets differ"),
    ],
)
def test_the_verdict_is_that_of_the_interval(shift, verdict, said):
    report = dataclasses.replace(check_texts(["a"], ["b"]), shift=shift)
    assert report.verdict == verdict
    assert said in report.summary()[-1]
    assert bool(report.warnings) == (verdict in ("below", "shift"))


def null_shifts(n, trials, vocabulary=60, rows=1):
    """The classifier's result on two sets of random words; with `rows` per document with its own words."""
    found = []
    for seed in range(trials):
        dice = random.Random(seed)
        sides, groups = [], []
        for side in "ab":
            texts = sentences(n, dice.random(), [f"w{i}" for i in range(vocabulary)])
            own = ["".join(dice.choices("abcdefghij", k=6)) for _ in range(n // rows)]
            sides.append([f"{text} {own[i // rows]}" if rows > 1 else text for i, text in enumerate(texts)])
            groups.append([f"{side}{i // rows}" for i in range(n)])
        found.append(text_shift(*sides, *groups, seed=seed))
    return found


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("n", "vocabulary", "rows"), [(30, 60, 1), (100, 60, 1), (100, 5000, 1), (120, 60, 4)])
def test_of_one_source_the_classifier_guesses_and_its_interval_says_so(n, vocabulary, rows):
    trials = 150
    found = null_shifts(n, trials, vocabulary, rows)
    areas = np.array([shift.auroc for shift in found])
    assert abs(areas.mean() - 0.5) < 3.5 * areas.std() / np.sqrt(trials)
    assert np.mean([shift.low <= 0.5 <= shift.high for shift in found]) > 0.92


@pytest.mark.slow
def test_of_30_pairs_of_sets_of_one_source_few_are_said_to_differ():
    """The interval of five folds' pooled scores left 0.5 in 6 of these 30."""
    assert sum(not shift.low <= 0.5 <= shift.high for shift in null_shifts(30, 30, vocabulary=300)) <= 3


def test_each_half_is_judged_by_the_other_and_by_itself():
    """By hand, with scikit-learn's parts: two AUROCs and the ends of their intervals, averaged."""
    members, heldout = sentences(60, 0), sentences(50, 1, [*WORDS[:40], *(f"v{n}" for n in range(5))])
    texts, label = np.array([*members, *heldout]), np.arange(110) < 60
    common = {"min_df": 2, "sublinear_tf": True}
    words = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), **common).fit_transform(texts)
    features = hstack([words, TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common).fit_transform(texts)])
    areas = []
    for fit, out in StratifiedKFold(2, shuffle=True, random_state=0).split(texts, label):
        model = LogisticRegression(solver="liblinear", class_weight="balanced").fit(features.tocsr()[fit], label[fit])
        score = torch.from_numpy(model.decision_function(features.tocsr()[out]))
        areas.append(auroc(score, torch.from_numpy(label[out])))
        assert areas[-1].value == pytest.approx(roc_auc_score(label[out], score))
    assert text_shift(members, heldout) == pytest.approx(tuple(np.mean(areas, axis=0)), abs=1e-9)


def test_a_repeated_text_counts_once_for_the_classifier():
    members, heldout = sentences(60, 0), sentences(60, 1)
    assert text_shift([*members, *members[:10] * 9], heldout) == text_shift(members, heldout)
    assert text_shift(members[:19] * 3, heldout) is None


def test_the_classifier_is_repeatable_and_leaves_random_state_alone():
    members, heldout = sentences(100, 0), sentences(120, 1)
    before = np.random.get_state()[1].copy()
    first = text_shift(members, heldout, max_rows=80, seed=3)
    assert first == text_shift(members, heldout, max_rows=80, seed=3)
    assert first != text_shift(members, heldout, max_rows=80, seed=4)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    ("members", "heldout", "groups"),
    [
        ([], [], None),
        (["a b c"] * 19, sentences(50, 0), None),
        (sentences(50, 0), sentences(50, 1), (["x"] * 50, ["y"] * 50)),
        (["!"] * 50, ["?"] * 50, None),
    ],
)
def test_too_little_text_is_not_measured(members, heldout, groups):
    report = check_texts(members, heldout, groups=groups)
    assert report.verdict == "not measured"
    assert "not measured" in report.summary()[-1]


def test_interval_is_that_of_attacks_when_every_row_is_a_cluster():
    dice = np.random.default_rng(0)
    member = np.arange(60) < 25
    score = dice.normal(size=60) + member
    found = clustered_auroc(score, member, np.arange(60))
    assert found == pytest.approx(tuple(auroc(torch.from_numpy(score), torch.from_numpy(member))))


def test_rows_that_are_copies_of_one_do_not_narrow_the_interval():
    dice = np.random.default_rng(0)
    member, score = np.arange(60) < 25, dice.normal(size=60)
    once = clustered_auroc(score, member, np.arange(60))
    four_times = clustered_auroc(*(np.repeat(x, 4) for x in (score, member, np.arange(60))))
    assert four_times == pytest.approx(once)


def test_datasets_are_read_by_column():
    def rows(texts, name):
        origins = [f"{name}:{n}" for n in range(len(texts))]
        return Dataset.from_dict(
            {
                "prompt": ["Say: "] * len(texts),
                "completion": texts,
                "group": origins,
                "origin": origins,
            }
        )

    report = check_trust(rows(["one two", "x"], "a"), rows(["three", "One, two!"], "b"), seed=1)
    assert report.examples["near"] == ["b:1 = a:0"]
    assert not report.grouped


def test_repeats_are_warned_of_when_there_are_many():
    assert "memorization seems stronger" in check_texts(["a", "a"], ["b"]).warnings[0]


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_a_threshold_is_above_0_up_to_1(threshold):
    with pytest.raises(ConfigError, match="threshold"):
        near_matches(["a"], ["b"], threshold)
