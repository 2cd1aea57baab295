"""The paper's n-gram match rate against a search of every pair of starts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.functional.ngram import longest_common_run, ngram_match_rate

words = st.lists(st.sampled_from("abc"), max_size=12)


def naive_run(left, right):
    best = 0
    for i in range(len(left)):
        for j in range(len(right)):
            n = 0
            while i + n < len(left) and j + n < len(right) and left[i + n] == right[j + n]:
                n += 1
            best = max(best, n)
    return best


@settings(deadline=None)
@given(words, words)
def test_run_is_that_of_a_naive_search(left, right):
    assert longest_common_run(left, right) == longest_common_run(right, left) == naive_run(left, right)


@settings(deadline=None)
@given(words, words.filter(bool), st.sampled_from([" ", "  ", "\n", "\t "]))
def test_rate_is_the_run_over_the_words_of_the_truth(left, right, space):
    rate = ngram_match_rate(space.join(left), space.join(right))
    assert rate == naive_run(left, right) / len(right)
    assert 0 <= rate <= 1


@settings(deadline=None)
@given(words, words.filter(bool), words)
def test_a_truth_contained_in_the_text_gives_one(before, truth, after):
    assert ngram_match_rate(" ".join([*before, *truth, *after]), " ".join(truth)) == 1.0


def test_a_frequent_word_in_a_long_text_is_not_junk():
    # difflib's autojunk leaves out words that make more than 1 % of a text of 200 words and more.
    draw = random.Random(0)
    truth = [word for i in range(150) for word in ("the", f"word{i}")]
    for generated in (truth, truth[40:240], ["the"] * 300, [draw.choice(truth) for _ in range(300)]):
        assert longest_common_run(generated, truth) == naive_run(generated, truth)
    assert ngram_match_rate("the " * 250, "the " * 250) == 1.0


@pytest.mark.parametrize(
    ("generated", "truth", "rate"),
    [
        ("mild rash after two doses", "severe rash after two weeks", 3 / 5),
        ("a rash developed", "a rash developed", 1.0),
        ("", "a rash developed", 0.0),
        ("developed rash a", "a rash developed", 1 / 3),  # the order counts
        ("rash rash rash", "a rash developed", 1 / 3),  # repeating a word gains nothing
        ("A Rash developed", "a rash developed", 1 / 3),  # case counts
        ("a rash, developed", "a rash developed", 1 / 3),  # so does punctuation
        ("a rash it had developed", "a rash developed", 2 / 3),  # a gap ends a run
        ("long before a rash developed and after", "a rash developed", 1.0),  # extra words cost nothing
        ("a", "a b c d e f g h i j", 1 / 10),
    ],
)
def test_golden_examples(generated, truth, rate):
    assert ngram_match_rate(generated, truth) == rate


@pytest.mark.parametrize("truth", ["", " \n\t"])
def test_a_truth_without_words_is_an_error(truth):
    with pytest.raises(ValueError, match="no words"):
        ngram_match_rate("anything", truth)
