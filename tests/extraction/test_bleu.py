"""BLEU compared with its formula."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import bleu_score

from lit_mem.errors import ConfigError
from lit_mem.extraction import Bleu, Continuation

words = st.lists(st.sampled_from("ab"), max_size=9)


def bleu(generated, truth, order=4):
    return Bleu(order)(Continuation([1], [1], generated, truth))


def by_the_formula(generated, truth, order):
    order = min(order, len(truth))
    logs = 0.0
    for n in range(1, order + 1):
        have, want = (Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (generated, truth))
        shared = sum(min(count, want[gram]) for gram, count in have.items())
        if not shared:
            return 0.0
        logs += math.log(shared / sum(have.values())) / order
    return math.exp(logs) * min(1.0, math.exp(1 - len(truth) / len(generated)))


@settings(deadline=None)
@given(words, words.filter(bool), st.integers(1, 5))
def test_it_is_the_formula(generated, truth, order):
    expected = by_the_formula(generated, truth, order)
    assert bleu(" ".join(generated), " ".join(truth), order) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30).filter(lambda text: text.split()))
def test_any_text_copied_is_one(text):
    assert bleu(text, text) == 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 30])
def test_a_short_copy_is_one_where_torchmetrics_says_zero(n):
    text = " ".join(f"w{i}" for i in range(n))
    assert bleu(text, text) == 1.0
    assert bleu_score([text], [[text]]).item() == (0.0 if n < 4 else pytest.approx(1.0))


@pytest.mark.parametrize(
    ("generated", "truth", "value"),
    [
        ("a b c d x", "a b c d e", (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ("a b c d", "a b c d e f g h", math.exp(1 - 8 / 4)),  # missing words reduce only the brevity penalty
        ("a b c x", "a b c d", 0.0),  # no common 4-gram, no smoothing
        ("c b a", "a b c", 0.0),
        ("a a a a", "a", 1 / 4),  # each word of the truth counts once
        ("A b c d", "a b c d", 0.0),  # case counts
        ("患者出现皮疹", "患者出现皮疹", 1.0),
        ("患者出现头痛", "患者出现皮疹", (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25),  # each character is a word
    ],
)
def test_examples(generated, truth, value):
    assert bleu(generated, truth) == pytest.approx(value, abs=1e-12)


def test_an_order_below_one_is_rejected():
    with pytest.raises(ConfigError, match=r"Bleu.order is 0; expected at least 1"):
        Bleu(0)
