"""The n-gram memorization score compared with ROUGE-n of torchmetrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.extraction import Continuation, NgramMemorization

ids = st.lists(st.integers(0, 3), max_size=14)


def continuation(generated, truth):
    return Continuation(generated, truth, "", "")


@given(ids, ids.filter(lambda found: len(found) >= 4), st.integers(1, 4))
def test_of_one_size_it_is_the_recall_of_rouge(generated, truth, n):
    from torchmetrics.functional.text.rouge import rouge_score

    expected = rouge_score(
        " ".join(map(str, generated)),
        " ".join(map(str, truth)),
        normalizer=str,
        tokenizer=str.split,
        rouge_keys=f"rouge{n}",
    )[f"rouge{n}_recall"]
    assert NgramMemorization([n])(continuation(generated, truth)) == pytest.approx(float(expected), abs=1e-6)


def test_it_is_the_mean_over_the_sizes():
    one = continuation([1, 2, 3, 4, 5, 9, 6, 7], [1, 2, 3, 4, 5, 6, 7])
    shares = {4: 2 / 4, 5: 1 / 3, 6: 0 / 2}
    for n, share in shares.items():
        assert NgramMemorization([n])(one) == pytest.approx(share)
    assert NgramMemorization()(one) == pytest.approx(sum(shares.values()) / 3)


def test_a_short_suffix_is_one_ngram():
    assert NgramMemorization()(continuation([5, 1, 2], [1, 2])) == 1
    assert NgramMemorization()(continuation([2, 1], [1, 2])) == 0
