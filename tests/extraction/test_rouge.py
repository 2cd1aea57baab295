"""ROUGE-L compared with a plain recursion, and with torchmetrics where that can read the text."""

import socket
import sys
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text.rouge import rouge_score

from lit_mem.errors import ConfigError
from lit_mem.extraction import Continuation, RougeL

words = st.lists(st.sampled_from(["a", "rash", "Rash", "b,", "7"]), max_size=10)


def rouge(generated, truth, part="fmeasure"):
    return RougeL(part)(Continuation([1], [1], generated, truth))


def longest_common_subsequence(left, right):
    @cache
    def length(i, j):
        if i == 0 or j == 0:
            return 0
        if left[i - 1] == right[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(left), len(right))


@settings(deadline=None)
@given(words, words.filter(bool))
def test_every_part_is_that_of_a_plain_recursion(generated, truth):
    left, right = ([word.lower().strip(",") for word in text] for text in (generated, truth))
    shared = longest_common_subsequence(left, right)
    generated, truth = " ".join(generated), " ".join(truth)
    assert rouge(generated, truth, "recall") == pytest.approx(shared / len(right), abs=1e-12)
    assert rouge(generated, truth, "precision") == pytest.approx(shared / max(len(left), 1), abs=1e-12)
    # The harmonic mean of shared/n and shared/m is 2 shared / (n + m).
    assert rouge(generated, truth) == pytest.approx(2 * shared / (len(left) + len(right)), abs=1e-12)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40), st.text(st.characters(max_codepoint=127), max_size=40))
def test_an_ascii_text_has_the_words_of_torchmetrics(generated, truth):
    theirs = rouge_score(generated, truth, rouge_keys="rougeL")
    if not any(c.isalnum() for c in truth):
        return  # torchmetrics gives 0 even for a copy
    for part in ("fmeasure", "recall", "precision"):
        assert rouge(generated, truth, part) == pytest.approx(float(theirs[f"rougeL_{part}"]), abs=1e-6)


@settings(deadline=None)
@given(words, words.filter(bool))
def test_exchanging_the_texts_exchanges_recall_and_precision(generated, truth):
    if generated:
        generated, truth = " ".join(generated), " ".join(truth)
        assert rouge(generated, truth) == pytest.approx(rouge(truth, generated), abs=1e-12)
        assert rouge(generated, truth, "recall") == rouge(truth, generated, "precision")


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30).filter(lambda text: text.split()))
def test_any_text_copied_is_one(text):
    for part in ("fmeasure", "recall", "precision"):
        assert rouge(text, text, part) == 1.0


@pytest.mark.parametrize(
    ("generated", "truth", "recall"),
    [
        ("a rash then developed", "A rash developed.", 1.0),  # a gap, case and punctuation cost nothing
        ("developed rash a", "a rash developed", 1 / 3),  # the order counts
        ("患者出现皮疹", "患者出现皮疹", 1.0),
        ("患者出现头痛", "患者出现皮疹", 4 / 6),  # no spaces: each character counts as a word
        ("患者,皮疹", "患者,头痛", 0.5),
        ("gęślą kaźń", "gęślą jaźń", 0.5),  # torchmetrics would compare "g", "l", "ka"
        ("का", "कि", 0.0),  # the vowel sign belongs to the word
        ("🙂", "🙂", 1.0),
        ("🙃", "🙂", 0.0),
        ("❤️", "✔️", 0.0),  # a variation selector alone is not a word
        ("🙃 rash", "🙂 rash", 1.0),  # next to words, emoji are ignored like punctuation
        ("...", "rash", 0.0),
    ],
)
def test_recall_of_examples(generated, truth, recall):
    assert rouge(generated, truth, "recall") == pytest.approx(recall)


def test_an_unknown_part_is_named():
    with pytest.raises(ConfigError, match=r"RougeL.part is 'f1'; expected one of fmeasure, recall, precision"):
        RougeL("f1")


def test_neither_network_nor_nltk_is_touched(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setitem(sys.modules, "nltk", None)  # importing it raises
    assert rouge("a rash", "a rash") == 1.0
