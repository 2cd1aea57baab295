"""Near duplicates among many texts: against the exact method, on texts whose similarity is known."""

import dataclasses
import json
import random

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.data import checks, deduplicate, minhash
from lit_mem.data.checks import check_texts, check_trust
from lit_mem.data.deduplicate import deduplicated
from lit_mem.data.minhash import near_matches_of, near_repeats_of, sketched, values_for
from lit_mem.data.overlap import near_matches, near_repeats, normalized, shingles
from lit_mem.data.row_texts import RowTexts, texts_at
from lit_mem.errors import ConfigError


def words(draw, n):
    return [f"w{draw.randrange(10**6)}" for _ in range(n)]


def changed(draw, text, n):
    """The text with n other words in a row: of its runs of three, n + 2 are others (fewer at the ends)."""
    own = text.split()
    start = draw.randrange(len(own) - n + 1)
    return " ".join([*own[:start], *words(draw, n), *own[start + n :]])


def jaccard(one, other):
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def pairs(n=700, length=60, seed=0):
    """Members, and held-out texts made of one each by changing 0 to 30 words."""
    draw = random.Random(seed)
    members = [" ".join(words(draw, length)) for _ in range(n)]
    return members, [changed(draw, text, draw.randrange(31)) for text in members]


def by_minhash(members, heldout, threshold):
    sketches = [sketched(side, threshold, "") for side in (members, heldout)]
    return near_matches_of(*sketches, (members, heldout), threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_what_is_found_is_as_similar_and_little_is_missed(threshold):
    members, heldout = pairs()
    similar = {j for j, pair in enumerate(zip(members, heldout, strict=True)) if jaccard(*pair) >= threshold}
    found = by_minhash(members, heldout, threshold)
    assert all(jaccard(members[i], heldout[j]) >= threshold for j, i in found.items())
    assert len(found.keys() & similar) >= 0.995 * len(similar)
    assert len(similar) > 40
    exact = near_matches(members, heldout, threshold)
    assert exact.keys() == similar
    assert all(found[j] == exact[j] for j in found)


def test_pairs_just_at_the_threshold_are_missed_as_seldom_as_bands_make_it():
    """Of 60 words 11 others in the middle: 45 of 71 runs in common."""
    draw = random.Random(1)
    members = [" ".join(words(draw, 60)) for _ in range(2000)]
    heldout = [" ".join([*text.split()[:20], *words(draw, 11), *text.split()[31:]]) for text in members]
    (similarity,) = {round(jaccard(*pair), 6) for pair in zip(members, heldout, strict=True)}
    assert similarity == round(45 / 71, 6)
    similarity = 45 / 71
    missed = 1 - len(by_minhash(members, heldout, similarity)) / len(members)
    values = values_for(similarity)
    expected = (1 - similarity**values) ** 32
    assert expected <= 0.001
    assert missed <= expected + 4 * (expected / len(members)) ** 0.5


def test_repeats_are_those_of_the_exact_method():
    members, heldout = pairs(500)
    texts = [*members, *heldout, members[3].upper(), "Fever.", "fever!", "?!", "? !", "?"]
    random.Random(2).shuffle(texts)
    assert near_repeats_of(sketched(texts, 0.7, ""), texts, 0.7) == near_repeats(texts, 0.7)


SCRIPTS = st.text("ab .皮疹é🙂ไ?\ud800", max_size=24)


@settings(deadline=None, max_examples=60)
@given(st.lists(SCRIPTS, min_size=1, max_size=8))
def test_each_run_of_words_has_a_hash_of_its_own(texts):
    forms = [normalized(text) for text in texts if shingles(text)]
    if not forms:
        return
    hashes, firsts = minhash._run_hashes(forms)
    apart = [set(part.tolist()) for part in np.split(hashes, firsts[1:])]
    of_run = {}
    for runs, found in zip(map(shingles, forms), apart, strict=True):
        assert len(runs) == len(found)
        of_run.update(dict.fromkeys(runs))
    assert len(set().union(*apart)) == len(of_run)


@settings(deadline=None, max_examples=40)
@given(st.lists(SCRIPTS, max_size=6), st.lists(SCRIPTS, max_size=6))
def test_texts_that_are_equal_once_normalized_are_always_found(members, heldout):
    found = by_minhash(members, heldout, 1.0)
    assert found.keys() == near_matches(members, heldout, 1.0).keys()
    again = near_repeats_of(sketched(heldout, 1.0, ""), heldout, 1.0)
    assert again == near_repeats(heldout, 1.0)


def test_texts_of_one_form_do_not_make_pairs_of_all_with_all(monkeypatch):
    form = " ".join(words(random.Random(3), 30))
    texts = [f"{form} {i}{i} {i}" for i in range(1500)]
    compared = []
    plain = minhash._jaccard
    monkeypatch.setattr(minhash, "_jaccard", lambda a, b: compared.append(1) or plain(a, b))
    found = near_repeats_of(sketched(texts, 0.7, ""), texts, 0.7)
    assert len(found) == 1499
    assert len(compared) <= 8 * len(texts)


@pytest.fixture
def always(monkeypatch):
    """MinHash whatever the number of texts."""
    for module in (checks, deduplicate):
        monkeypatch.setattr(module, "EXACT_UP_TO", 0)


def both_sets():
    members, heldout = pairs(200)
    members += members[:7] + [text.upper() for text in members[7:9]]
    heldout[:3] = members[:3]
    return members, heldout


def test_few_texts_are_compared_exactly():
    members, heldout = both_sets()
    report = check_texts(members, heldout, classifier_rows=30)
    assert (report.near_method, report.shared_near) == ("exact", len(near_matches(members, heldout)))
    assert "MinHash" not in "".join(report.summary())


@pytest.mark.usefixtures("always")
def test_of_many_the_report_says_how_they_were_compared():
    members, heldout = both_sets()
    found = check_texts(members, heldout, classifier_rows=30)
    assert found.near_method == "MinHash with 32 bands of 4, each match verified"
    assert found.near_method in "".join(found.summary())
    assert json.loads(found.to_json())["near_method"] == found.near_method
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "EXACT_UP_TO", 10**9)
        exact = check_texts(members, heldout, classifier_rows=30)
    assert dataclasses.replace(found, near_method="exact") == exact
    with pytest.raises(ConfigError, match="threshold"):
        check_texts(members, heldout, near_jaccard=0)


def as_rows(texts, first=0):
    numbers = range(first, first + len(texts))
    origins = [f"file:{i}" for i in numbers]
    groups = [f"g{i // 3}" for i in numbers]
    split = [text.partition(" ") for text in texts]
    prompts, completions = [a + b for a, b, _ in split], [c for _, _, c in split]
    return Dataset.from_dict({"prompt": prompts, "completion": completions, "group": groups, "origin": origins})


@pytest.mark.usefixtures("always")
def test_rows_are_checked_as_texts_are():
    members, heldout = both_sets()
    train, others = as_rows(members), as_rows(heldout, len(members) - 1)
    found = check_trust(train.select(range(len(train))), others.select(range(len(others))), classifier_rows=30)
    groups, origins = ([rows[name][:] for rows in (train, others)] for name in ("group", "origin"))
    assert found == check_texts(members, heldout, tuple(groups), tuple(origins), classifier_rows=30)
    assert found.shared_groups == 1


@pytest.mark.usefixtures("always")
def test_a_training_set_of_many_texts_is_deduplicated_by_minhash(caplog):
    import logging

    logging.getLogger("lit_mem").propagate = True
    members, heldout = pairs(300)
    with caplog.at_level("INFO"):
        left = deduplicated(as_rows([*members, *heldout]), "near")
    again = near_repeats([*members, *heldout])
    assert left["origin"][:] == [f"file:{i}" for i in range(600) if i not in again]
    assert "near, by MinHash with 32 bands of 4" in caplog.text


def test_rows_as_texts():
    texts = [f"a{i} b c" for i in range(25)]
    rows = RowTexts(as_rows(texts).select(range(24, -1, -1)))
    assert list(rows) == texts[::-1]
    assert (rows[0], rows[-1], rows[3:5], len(rows)) == (texts[24], texts[0], texts[21:19:-1], 25)
    assert texts_at(rows, [5, 1]) == [texts[19], texts[23]]
    assert texts_at(texts, [5, 1]) == [texts[5], texts[1]]
    with pytest.raises(IndexError):
        rows[25]
