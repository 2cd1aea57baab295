"""Runs of words found in a corpus, against all substrings tried one by one."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.functional import word_runs
from lit_mem.functional.openings import opening, shared_openings
from lit_mem.functional.word_runs import WordRuns
from lit_mem.functional.words import words

texts = st.lists(st.text("abc ", max_size=24), max_size=5)


def runs_of(text, k):
    """All runs of at least k words."""
    split = words(text)
    return {tuple(split[i:j]) for i in range(len(split)) for j in range(i + k, len(split) + 1)}


def brute_force(few, corpus, k, unwanted):
    """Words inside runs of the corpus without an unwanted run of k words, the longest such run, and the texts hit."""
    out = {run for text in unwanted for run in runs_of(text, k)}
    covered, longest, hit = 0, 0, set()
    for text in few:
        split, inside = words(text), set()
        for i in range(len(split)):
            for j in range(i + k, len(split) + 1):
                run = tuple(split[i:j])
                within = {run[m : m + k] for m in range(len(run) - k + 1)}
                holding = {one for one in corpus if run in runs_of(one, k)}
                if holding and not within & out:
                    inside |= set(range(i, j))
                    longest, hit = max(longest, j - i), hit | holding
        covered += len(inside)
    return covered, longest, len(hit)


@given(texts, texts, texts, st.integers(1, 3), st.sampled_from([1, 7, 10**6]))
def test_what_is_found_is_what_brute_force_finds(few, corpus, unwanted, k, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_runs, "_AT_ONCE", at_once)
        runs = WordRuns(few, k)
        wanted = ~runs.find(unwanted).there
        found = runs.find(iter(corpus), wanted)
    assert runs.n_words == sum(len(words(text)) for text in few)
    assert (runs.covered(found.there & wanted), found.longest, len(found.hit)) == brute_force(few, corpus, k, unwanted)


@given(texts, texts, st.integers(1, 3))
def test_parts_of_a_corpus_put_together_are_the_whole(few, corpus, k):
    runs = WordRuns(few, k)
    wanted = np.arange(runs.n_runs) % 2 == 0
    whole, parts = runs.find(corpus, wanted), runs.find(corpus[::2], wanted) | runs.find(corpus[1::2], wanted)
    assert np.array_equal(whole.there, parts.there)
    assert (whole.longest, whole.hit) == (parts.longest, parts.hit)


def test_case_and_punctuation_count_and_copies_are_one_text():
    runs = WordRuns(["she took Drug A twice daily. 服用阿司匹林"], 4)
    every = ~runs.nowhere()
    assert runs.find(["She took Drug A twice", "took Drug A twice", "took Drug B twice daily."], every).longest == 4
    assert runs.find(["每天服用阿司匹林。"] * 3, every).longest == 6
    assert len(runs.find(["每天服用阿司匹林。"] * 3, every).hit) == 1


def test_a_run_does_not_go_over_the_end_of_a_text_nor_over_two_places_of_what_was_written():
    runs = WordRuns(["a b c d", "c d e f"], 2)
    every = ~runs.nowhere()
    assert runs.find(["a b", "c d"], every).longest == 2
    assert runs.find(["a b c d e f"], every).longest == 4  # no written text has more of it


def test_a_large_corpus_is_read_in_portions():
    random.seed(0)
    vocabulary = [f"w{i}" for i in range(50)]
    corpus = [" ".join(random.choices(vocabulary, k=40)) for _ in range(2000)]
    runs = WordRuns([corpus[1234], "x " + " ".join(corpus[77].split()[5:25])], 8)
    found = runs.find((text for text in corpus), ~runs.nowhere())
    assert (found.longest, len(found.hit), runs.covered(found.there)) == (40, 2, 60)


@given(st.lists(st.text("ab. ", max_size=8), max_size=9), st.integers(1, 2), st.integers(1, 3), st.integers(0, 3))
def test_openings_are_those_that_so_many_different_texts_share(corpus, n_words, at_least, n_most):
    found = shared_openings(corpus, n_words, at_least, n_most)
    sharing = {one: {text for text in corpus if opening(text, n_words) == one} for one in found}
    assert len(found) == len(set(found)) <= n_most
    assert all(len(those) >= at_least for those in sharing.values())
    left = {opening(text, n_words) for text in corpus} - {None, *found}
    fewest = min((len(those) for those in sharing.values()), default=math.inf)
    for one in left:
        n = len({text for text in corpus if opening(text, n_words) == one})
        assert n < at_least or (len(found) == n_most and n <= fewest)


def test_an_opening_is_the_texts_own_spelling_and_never_half_a_word():
    assert opening(" A 45-year-old man", 3) == "A 45-year"
    assert opening("患者服用阿司匹林", 2) == "患者"
    assert opening("a" * 500, 1) is None
    assert opening("Fever", 1) == "Fever"
