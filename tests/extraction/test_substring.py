"""The longest common substring against all substrings of both texts."""

from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.extraction import Continuation, LongestCommonSubstring
from lit_mem.functional.substring import longest_common_substring

short = st.text("ab皮🙂", max_size=14)


def share(generated, truth):
    return LongestCommonSubstring()(Continuation([1], [1], generated, truth))


def substrings(text):
    return {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}


@settings(deadline=None, max_examples=300)
@given(short, short)
def test_it_is_the_longest_of_all_common_substrings(left, right):
    longest = max(len(piece) for piece in substrings(left) & substrings(right))
    assert longest_common_substring(left, right) == longest
    assert longest_common_substring(right, left) == longest


def test_long_texts_agree_with_difflib(texts):
    left, right = " ".join(texts[:12]), " ".join(texts[6:18])
    expected = SequenceMatcher(None, left, right, autojunk=False).find_longest_match(0, len(left), 0, len(right)).size
    assert longest_common_substring(left, right) == expected > 100


@pytest.mark.parametrize(
    ("generated", "truth", "length"),
    [
        # privacy_guard/analysis/tests/test_text_inclusion.py of PrivacyGuard, with the texts as its node cleans them
        ("a success target text 1", "target text 1", 13),
        ("failure no match", "target text 2", 1),
        ("this is an exact match", "this is an exact match", 22),
        ("this is included", "this is included", 16),
        ("isitincluded", "included", 8),
        ("dolorem ipsum quia dolor sit amet consectetur", "neque porro quisquam est qui dolorem ipsum", 13),
        ("w" * 50 + "t" * 160 + "b" * 50 + "t" * 155, "x" * 50 + "t" * 200 + "c" * 150 + "t" * 200, 160),
        ("a" * 200, "b" * 200 + "a" * 20, 20),
        # ours
        ("", "rash", 0),
        ("RASH", "rash", 0),  # case counts
        ("a rash, then", "the rash, then", 11),  # a run may begin within white space
        ("患者出现头痛", "患者出现皮疹", 4),
    ],
)
def test_golden_lengths(generated, truth, length):
    assert longest_common_substring(generated, truth) == length
    assert share(generated, truth) == length / len(truth)
    count = LongestCommonSubstring(share=False)(Continuation([1], [1], generated, truth))
    assert isinstance(count, float)
    assert count == length


@settings(deadline=None)
@given(st.text(max_size=20), st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_a_truth_contained_in_the_text_gives_one(before, truth, after):
    assert share(before + truth + after, truth) == 1.0


@settings(deadline=None)
@given(st.text("abc"), st.text("xyz", min_size=1))
def test_texts_without_a_common_character_are_zero(left, right):
    assert share(left, right) == 0.0


def test_texts_that_repeat_themselves_take_no_longer():
    # Comparing all pairs of characters would take hours here: 3,000 characters already take difflib 0.9 s.
    left, right = "a" * 50_000 + "b" + "a" * 49_999, "a" * 49_999 + "c" + "a" * 50_000
    assert longest_common_substring(left, right) == 50_000
