"""Edit similarity compared with a plain recursion, and with torchmetrics where that is exact."""

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import edit_distance

from lit_mem.extraction import Continuation, EditSimilarity

short = st.text("ab皮🙂 ", max_size=9)


def similarity(generated, truth):
    return EditSimilarity()(Continuation([1], [1], generated, truth))


def levenshtein(left, right):
    @cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(left), len(right))


@settings(deadline=None)
@given(short, short.filter(bool))
def test_it_is_that_of_a_plain_recursion_and_of_torchmetrics(generated, truth):
    distance = levenshtein(generated, truth)
    assert similarity(generated, truth) == pytest.approx(1 - distance / max(len(generated), len(truth)), abs=1e-12)
    assert edit_distance(generated, truth).item() == distance


def test_long_texts_agree_with_torchmetrics(texts):
    for left, right in zip(texts[:4], texts[4:8], strict=True):
        expected = 1 - edit_distance(left, right).item() / max(len(left), len(right))
        assert similarity(left, right) == pytest.approx(expected, abs=1e-6)


def test_a_shift_costs_no_more_than_its_characters():
    # torchmetrics searches only a band of 25 characters beside the diagonal.
    text = "".join(random.Random(0).choices("abcdefgh", k=240))
    shifted = "#" * 60 + text
    assert similarity(shifted, text + "=" * 60) == pytest.approx(1 - 120 / 300)
    assert edit_distance(shifted, text + "=" * 60).item() > 200


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_bounds_and_symmetry(left, right):
    assert similarity(left, left) == 1.0
    assert similarity("", left) == 0.0
    assert similarity(left, right) == similarity(right, left)
    assert (similarity(left, right) == 1.0) == (left == right)


@settings(deadline=None)
@given(st.text("abc", min_size=1), st.text("xyz", min_size=1))
def test_texts_without_a_common_character_are_zero(left, right):
    assert similarity(left, right) == 0.0


@pytest.mark.parametrize(
    ("generated", "truth", "value"),
    [
        ("kitten", "sitting", 1 - 3 / 7),
        ("Rash", "rash", 3 / 4),  # case counts
        ("rash ", "rash", 4 / 5),  # so does white space
        ("患者出现头痛", "患者出现皮疹", 4 / 6),
        ("👩‍⚕️", "👨‍⚕️", 3 / 4),  # four code points, one of which differs
    ],
)
def test_examples(generated, truth, value):
    assert similarity(generated, truth) == pytest.approx(value, abs=1e-12)
