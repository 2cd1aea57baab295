"""Which rows of a training set repeat another."""

import itertools
import logging
import random

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.data.deduplicate import deduplicated
from lit_mem.data.overlap import near_matches, near_repeats, normalized, shingles
from lit_mem.errors import ConfigError

LONG = "a 45 year old man was given ibuprofen for two weeks and then had a fever that would not end"
TEXTS = [
    LONG,  # 0
    "Something else entirely, of which nothing is shared with any other.",  # 1
    LONG,  # 2: the same as 0
    LONG.upper() + "!",  # 3: the same ignoring case and punctuation
    LONG.replace("ibuprofen", "aspirin").replace("fever", "cough"),  # 4: 12 of 24 runs of three words shared
    LONG + " at all",  # 5: 18 of 20
    "fever",  # 6
    "Fever.",  # 7
]


def rows(texts, prompt=0):
    return Dataset.from_dict(
        {
            "prompt": [t[:prompt] for t in texts],
            "completion": [t[prompt:] for t in texts],
            "row": list(range(len(texts))),
        }
    )


@pytest.mark.parametrize(
    ("how", "kept"), [("none", range(8)), ("exact", [0, 1, 3, 4, 5, 6, 7]), ("near", [0, 1, 4, 6])]
)
@pytest.mark.parametrize("prompt", [0, 3])
def test_of_equal_rows_the_first_is_kept(how, kept, prompt, caplog):
    with caplog.at_level(logging.INFO, "lit_mem"):
        assert deduplicated(rows(TEXTS, prompt), how)["row"][:] == list(kept)
    assert LONG[:20] not in caplog.text
    assert ("rows repeat an earlier one" in caplog.text) == (how != "none")


def test_a_set_without_duplicates_is_handed_on_as_it_is():
    made = rows(TEXTS[:2])
    assert deduplicated(made, "near") is made


def brute(texts, threshold):
    """The definition: in order, each text against all that were kept."""
    found, kept = {}, []
    for j, text in enumerate(texts):
        for i in kept:
            a, b = shingles(texts[i]), shingles(text)
            near = bool(a | b) and len(a & b) / len(a | b) >= threshold
            if near or normalized(texts[i]) == normalized(text):
                found[j] = i
                break
        else:
            kept.append(j)
    return found


WORDS = st.lists(st.sampled_from("a b c d . A".split()), min_size=0, max_size=9).map(" ".join)


@pytest.mark.slow
@pytest.mark.exhaustive
@settings(max_examples=3 * settings.default.max_examples // 2, deadline=None)
@given(st.lists(WORDS, max_size=9), st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_near_repeats_are_those_of_the_definition(texts, threshold):
    assert near_repeats(texts, threshold) == brute(texts, threshold)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_many_texts_are_as_by_definition():
    chosen = random.Random(1)
    texts = [" ".join(chosen.choices("abcdefgh", k=chosen.randint(5, 15))) for _ in range(150)]
    texts += [text.replace("a b", "a c", 1) for text in texts[:60]] + texts[10:30]
    found = near_repeats(texts, 0.5)
    assert found == brute(texts, 0.5)
    assert len(found) > 20
    left = [text for i, text in enumerate(texts) if i not in found]
    assert not any(near_matches([a], [b], 0.5) for a, b in itertools.combinations(left[:40], 2))


@pytest.mark.parametrize("texts", [[], [""], ["", " ", "!"], ["!", "!", "?"]])
def test_texts_without_words(texts):
    assert near_repeats(texts) == brute(texts, 0.7)


def test_a_threshold_out_of_range_is_rejected():
    with pytest.raises(ConfigError, match="expected above 0 and at most 1"):
        near_repeats(["a"], 0)
