"""Semantic similarity compared with one text at a time, without padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.errors import ConfigError, ModelError
from lit_mem.extraction import Continuation, SemanticSimilarity
from lit_mem.extraction.encoder import EncodedText
from lit_mem.extraction.semantic import _similarity


def pair(generated, truth):
    return Continuation([1], [1], generated, truth)


def by_hand(encoder, generated, truth):
    """Cosine of the plain means of all tokens' last hidden states."""
    tokenizer, model = encoder
    means = []
    for text in (generated, truth):
        with torch.no_grad():
            states = (
                model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=128))
                .last_hidden_state[0]
                .double()
            )
        means.append(sum(states) / len(states))
    left, right = means
    return max(0.0, float(left @ right / (left.norm() * right.norm())))


def test_each_pair_is_that_without_padding(encoder_folder, encoder, texts):
    pairs = [(texts[i][: 9 + 23 * (5 * i % 7)], texts[(i + 3) % 8][:100]) for i in range(8)]
    expected = [by_hand(encoder, *texts) for texts in pairs]
    measure = SemanticSimilarity(encoder_folder(), batch_size=3)
    assert measure.over([pair(*texts) for texts in pairs]) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.02  # otherwise a mix-up of pairs would go unnoticed


@settings(deadline=None, max_examples=25)
@given(st.text("abc 皮7", min_size=1, max_size=12), st.text("rash 疹.", min_size=1, max_size=12))
def test_it_is_a_symmetric_share(measure, left, right):
    if left.split() and right.split():
        value = measure(pair(left, right))
        assert 0 <= value <= 1
        assert value == pytest.approx(measure(pair(right, left)), abs=1e-5)


@pytest.fixture(scope="module")
def measure(encoder_folder):
    return SemanticSimilarity(encoder_folder())


def test_a_copy_in_capitals_goes_through_the_model_and_is_one(measure):
    assert measure(pair("A Rash Developed", "a rash developed")) == pytest.approx(1.0, abs=1e-6)


def test_nothing_readable_is_zero_though_special_tokens_have_vectors(measure):
    for generated in ("", " \n", "\ufffd"):
        assert measure(pair(generated, "rash")) == 0.0


def vectors(*rows):
    return EncodedText(torch.tensor(rows), torch.ones(len(rows), dtype=torch.bool))


def test_the_cosine_of_the_means_is_clipped_at_zero():
    one = vectors([1.0, 0.0], [0.0, 1.0])  # mean (1/2, 1/2)
    assert _similarity(one, vectors([3.0, 3.0])) == pytest.approx(1.0, abs=1e-12)
    assert _similarity(one, vectors([1.0, 0.0])) == pytest.approx(0.5**0.5, abs=1e-12)
    assert _similarity(one, vectors([-1.0, 0.0])) == 0.0
    assert _similarity(one, vectors([1.0, -1.0])) == 0.0
    assert _similarity(one, vectors([1.0, 0.0], [-1.0, 0.0])) == 0.0  # a mean of norm 0


def test_mistakes_name_the_option(encoder_folder):
    with pytest.raises(ConfigError, match=r"SemanticSimilarity.batch_size is 0"):
        SemanticSimilarity("any", batch_size=0)
    with pytest.raises(ModelError, match=r"SemanticSimilarity.model is the folder /none, which does not exist"):
        SemanticSimilarity("/none")(pair("rash", "dose"))
